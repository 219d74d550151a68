// SPDX-License-Identifier: Apache-2.0
package io.tfrewprune.sample

import android.content.res.AssetManager
import io.tfrewprune.Options
import io.tfrewprune.TfrewpruneDelegate
import java.io.Closeable
import java.io.FileInputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.MappedByteBuffer
import java.nio.channels.FileChannel
import kotlin.math.abs
import kotlin.random.Random
import org.tensorflow.lite.Interpreter

/** Median latencies of the two models, and how far their outputs are apart. */
data class Result(
    val denseMillis: Double,
    val packedMillis: Double,
    val packedLayers: Int,
    val largestDifference: Float,
    val runs: Int,
)

/** One model in LiteRT's interpreter; with `delegate` its packed layers run in ours. */
private class Runner(model: MappedByteBuffer, threads: Int, private val delegate: TfrewpruneDelegate?) :
    Closeable {
    private val interpreter =
        Interpreter(
            model,
            Interpreter.Options().setNumThreads(threads).apply {
                if (delegate != null) addDelegate(delegate)
            },
        )
    private val output = buffer(interpreter.getOutputTensor(0).numBytes())

    val inputBytes: Int = interpreter.getInputTensor(0).numBytes()
    val packedLayers: Int = delegate?.claimedNodes() ?: 0

    fun run(input: ByteBuffer): Double {
        input.rewind()
        output.rewind()
        val begin = System.nanoTime()
        interpreter.run(input, output)
        return (System.nanoTime() - begin) / 1e6
    }

    fun values(): FloatArray {
        output.rewind()
        return FloatArray(output.capacity() / Float.SIZE_BYTES).also { output.asFloatBuffer().get(it) }
    }

    override fun close() {
        interpreter.close()
        delegate?.close()
    }
}

/**
 * Runs dense and packed model one after the other, many times. Alternating runs share the phone's
 * clock and temperature, so that their ratio is worth something.
 */
fun compare(assets: AssetManager, threads: Int, runs: Int = 50): Result {
    val dense = Runner(assets.map("dense.tflite"), threads, null)
    dense.use {
        val packed =
            Runner(assets.map("packed.tflite"), threads, TfrewpruneDelegate(Options().threads(threads)))
        packed.use {
            val input = randomInput(dense.inputBytes)
            repeat(5) {
                dense.run(input)
                packed.run(input)
            }
            val times = List(runs) { dense.run(input) to packed.run(input) }
            val difference =
                dense.values().zip(packed.values().asIterable()) { a, b -> abs(a - b) }.maxOrNull() ?: 0f
            return Result(
                denseMillis = median(times.map { it.first }),
                packedMillis = median(times.map { it.second }),
                packedLayers = packed.packedLayers,
                largestDifference = difference,
                runs = runs,
            )
        }
    }
}

private fun AssetManager.map(name: String): MappedByteBuffer =
    openFd(name).use { file ->
        FileInputStream(file.fileDescriptor).channel.use { channel ->
            channel.map(FileChannel.MapMode.READ_ONLY, file.startOffset, file.declaredLength)
        }
    }

private fun buffer(bytes: Int): ByteBuffer =
    ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

private fun randomInput(bytes: Int): ByteBuffer {
    val random = Random(1)
    return buffer(bytes).apply {
        while (hasRemaining()) putFloat(random.nextFloat())
    }
}

private fun median(values: List<Double>): Double = values.sorted()[values.size / 2]
