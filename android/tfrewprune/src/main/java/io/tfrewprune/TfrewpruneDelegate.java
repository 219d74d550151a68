// SPDX-License-Identifier: Apache-2.0
package io.tfrewprune;

import org.tensorflow.lite.Delegate;

/**
 * Runs the packed layers of a model that {@code tfrewprune.convert} made, in the Interpreter of
 * TensorFlow Lite or LiteRT 1.x.
 *
 * <pre>
 * TfrewpruneDelegate delegate = new TfrewpruneDelegate();
 * Interpreter interpreter =
 *     new Interpreter(model, new Interpreter.Options().addDelegate(delegate));
 * ...
 * interpreter.close();
 * delegate.close();
 * </pre>
 *
 * One delegate serves one interpreter and must be closed after it. Closing twice is fine; a closed
 * delegate throws {@link IllegalStateException}.
 */
public final class TfrewpruneDelegate implements Delegate {
  static {
    System.loadLibrary("tfrewprune_delegate");
  }

  private long handle;

  public TfrewpruneDelegate() {
    this(new Options());
  }

  /**
   * @throws IllegalArgumentException if an option is not understood; the message says which
   */
  public TfrewpruneDelegate(Options options) {
    if (options == null) {
      throw new IllegalArgumentException("tfrewprune: options must not be null.");
    }
    handle = create(options.keys(), options.values());
  }

  @Override
  public synchronized long getNativeHandle() {
    if (handle == 0) {
      throw new IllegalStateException("tfrewprune: this delegate has been closed.");
    }
    return handle;
  }

  /** How many layers run packed; 0 before an interpreter was made with this delegate. */
  public synchronized int claimedNodes() {
    return claimedNodes(getNativeHandle());
  }

  /** The kernels in use, "neon" on phones. */
  public synchronized String isa() {
    return isaName(getNativeHandle());
  }

  /** The version of the native library. */
  public static String libraryVersion() {
    return version();
  }

  @Override
  public synchronized void close() {
    destroy(handle);
    handle = 0;
  }

  private static native long create(String[] keys, String[] values);

  private static native void destroy(long handle);

  private static native int claimedNodes(long handle);

  private static native String isaName(long handle);

  private static native String version();
}
