// SPDX-License-Identifier: Apache-2.0
package io.tfrewprune;

import java.lang.reflect.Field;

/**
 * Lets LiteRT 2's CompiledModel (2.1.6 or newer) run packed layers.
 *
 * <pre>
 * Environment environment = Environment.create();
 * TfrewpruneAccelerator.register(environment, new Options());
 * CompiledModel model = CompiledModel.create(
 *     assets, "packed.tflite", new CompiledModel.Options(Accelerator.CPU), environment);
 * </pre>
 */
public final class TfrewpruneAccelerator {
  static {
    System.loadLibrary("tfrewprune_delegate");
  }

  private TfrewpruneAccelerator() {}

  /**
   * Registers the native library with an environment, before models are made with it.
   *
   * @param environment a {@code com.google.ai.edge.litert.Environment}. LiteRT does not publish its
   *     native handle, so it is read from the field that holds it.
   * @throws IllegalArgumentException if it is no such environment or an option is not understood
   * @throws IllegalStateException if the app has no libLiteRt.so
   */
  public static void register(Object environment, Options options) {
    if (environment == null || options == null) {
      throw new IllegalArgumentException(
          "tfrewprune: environment and options must not be null.");
    }
    register(handleOf(environment), options.keys(), options.values());
  }

  private static long handleOf(Object environment) {
    for (Class<?> type = environment.getClass(); type != null; type = type.getSuperclass()) {
      try {
        Field field = type.getDeclaredField("handle");
        field.setAccessible(true);
        return field.getLong(environment);
      } catch (NoSuchFieldException next) {
        // A field of a superclass, as in LiteRT 2.2.
      } catch (IllegalAccessException | RuntimeException error) {
        throw new IllegalArgumentException(
            "tfrewprune: the handle of " + environment.getClass().getName() + " is not readable: "
                + error);
      }
    }
    throw new IllegalArgumentException(
        "tfrewprune: expected LiteRT's Environment, received "
            + environment.getClass().getName() + " without a native handle.");
  }

  private static native void register(long environment, String[] keys, String[] values);
}
