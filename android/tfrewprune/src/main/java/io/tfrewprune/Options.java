// SPDX-License-Identifier: Apache-2.0
package io.tfrewprune;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * How packed layers run. Nothing has to be set.
 *
 * <pre>new Options().threads(2).logLevel("info")</pre>
 */
public final class Options {
  private final Map<String, String> pairs = new LinkedHashMap<>();

  /** Threads of packed layers, 1 to 64; without it as many as the interpreter has. */
  public Options threads(int count) {
    return set("threads", Integer.toString(count));
  }

  /** Which kernels: "auto", "neon", "portable" or "reference". */
  public Options isa(String name) {
    return set("isa", name);
  }

  /**
   * "float32", or "float16": products and short sums in halves where the CPU and a layer allow it,
   * faster and with an error of about a thousandth.
   */
  public Options precision(String name) {
    return set("precision", name);
  }

  /** What goes to the log: "error", "warning", "info" or "debug". */
  public Options logLevel(String level) {
    return set("log_level", level);
  }

  /** Any option of the native library; see tfrewprune.h. */
  public Options set(String key, String value) {
    if (key == null || value == null) {
      throw new IllegalArgumentException(
          "tfrewprune: an option must have a key and a value, received " + key + " = " + value);
    }
    pairs.put(key, value);
    return this;
  }

  String[] keys() {
    return pairs.keySet().toArray(new String[0]);
  }

  String[] values() {
    return pairs.values().toArray(new String[0]);
  }
}
