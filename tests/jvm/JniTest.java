// SPDX-License-Identifier: Apache-2.0
import io.tfrewprune.Options;
import io.tfrewprune.TfrewpruneAccelerator;
import io.tfrewprune.TfrewpruneDelegate;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicReference;

/** Right and wrong use of the Java classes on a desktop JVM; exits with 1 at the first fault. */
public final class JniTest {
  private static int checks = 0;

  /** Like LiteRT's: the handle is a field of the superclass. */
  abstract static class JniHandle {
    private final long handle;

    JniHandle(long handle) {
      this.handle = handle;
    }
  }

  static final class Environment extends JniHandle {
    Environment(long handle) {
      super(handle);
    }
  }

  interface Call {
    void run() throws Exception;
  }

  static void check(boolean right, String what) {
    ++checks;
    if (!right) {
      throw new AssertionError(what);
    }
  }

  static void fails(Class<? extends Exception> kind, String part, Call call) throws Exception {
    try {
      call.run();
    } catch (Exception error) {
      check(kind.isInstance(error), "expected " + kind + ", received " + error);
      check(error.getMessage().contains(part), "expected '" + part + "' in: " + error);
      return;
    }
    throw new AssertionError("nothing was thrown; expected " + kind + " with '" + part + "'");
  }

  public static void main(String[] arguments) throws Exception {
    String version = TfrewpruneDelegate.libraryVersion();
    check(version.equals(arguments[0]), "version " + version);

    TfrewpruneDelegate delegate =
        new TfrewpruneDelegate(
            new Options().threads(2).isa("portable").precision("float16").logLevel("error"));
    check(delegate.getNativeHandle() != 0, "a handle");
    check(delegate.isa().equals("portable"), "isa " + delegate.isa());
    check(delegate.claimedNodes() == 0, "claims nothing yet");
    delegate.close();
    delegate.close();
    fails(IllegalStateException.class, "has been closed", delegate::getNativeHandle);
    fails(IllegalStateException.class, "has been closed", delegate::claimedNodes);
    fails(IllegalStateException.class, "has been closed", delegate::isa);

    fails(IllegalArgumentException.class, "must not be null", () -> new TfrewpruneDelegate(null));
    fails(IllegalArgumentException.class, "isa = null", () -> new Options().isa(null));
    fails(
        IllegalArgumentException.class,
        "Received: 'mmx'",
        () -> new TfrewpruneDelegate(new Options().isa("mmx")));
    fails(
        IllegalArgumentException.class,
        "Received: 'half'",
        () -> new TfrewpruneDelegate(new Options().precision("half")));
    fails(
        IllegalArgumentException.class,
        "speed",
        () -> new TfrewpruneDelegate(new Options().set("speed", "high")));
    Options many = new Options();
    for (int i = 0; i < 17; ++i) {
      many.set("option" + i, "1");
    }
    fails(IllegalArgumentException.class, "16 at most", () -> new TfrewpruneDelegate(many));

    fails(
        IllegalArgumentException.class,
        "must not be null",
        () -> TfrewpruneAccelerator.register(null, new Options()));
    fails(
        IllegalArgumentException.class,
        "received java.lang.String without",
        () -> TfrewpruneAccelerator.register("environment", new Options()));
    fails(
        IllegalStateException.class,
        "libLiteRt.so is not part of this app",
        () -> TfrewpruneAccelerator.register(new Environment(1), new Options()));

    fromManyThreads();
    System.out.println("jni: " + checks + " passed, 0 failed");
  }

  /** Made on one thread, closed on another, errors and all. */
  static void fromManyThreads() throws Exception {
    AtomicReference<Throwable> wrong = new AtomicReference<>();
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 8; ++i) {
      String unknown = "isa" + i;
      Thread thread =
          new Thread(
              () -> {
                try {
                  for (int round = 0; round < 50; ++round) {
                    TfrewpruneDelegate delegate = new TfrewpruneDelegate();
                    Thread closer = new Thread(delegate::close);
                    closer.start();
                    fails(
                        IllegalArgumentException.class,
                        "'" + unknown + "'",
                        () -> new TfrewpruneDelegate(new Options().isa(unknown)));
                    closer.join();
                  }
                } catch (Throwable error) {
                  wrong.set(error);
                }
              });
      threads.add(thread);
      thread.start();
    }
    for (Thread thread : threads) {
      thread.join();
    }
    if (wrong.get() != null) {
      throw new AssertionError(wrong.get());
    }
  }
}
