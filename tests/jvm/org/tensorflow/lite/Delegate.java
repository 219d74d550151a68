// SPDX-License-Identifier: Apache-2.0
package org.tensorflow.lite;

import java.io.Closeable;

/** The interface of LiteRT's Android library, which no package registry of CI carries. */
public interface Delegate extends Closeable {
  long getNativeHandle();

  @Override
  default void close() {}
}
