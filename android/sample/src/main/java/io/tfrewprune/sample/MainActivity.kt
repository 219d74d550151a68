// SPDX-License-Identifier: Apache-2.0
package io.tfrewprune.sample

import android.app.Application
import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.activity.viewModels
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.padding
import androidx.compose.material3.Button
import androidx.compose.material3.FilterChip
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.Surface
import androidx.compose.material3.Text
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableIntStateOf
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.setValue
import androidx.compose.ui.Modifier
import androidx.compose.ui.unit.dp
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

/** What the screen shows; the measurement goes on while the phone is turned. */
class ComparisonModel(application: Application) : AndroidViewModel(application) {
    var threads by mutableIntStateOf(1)
    var running by mutableStateOf(false)
        private set

    var result by mutableStateOf<Result?>(null)
        private set

    var error by mutableStateOf<String?>(null)
        private set

    fun measure() {
        if (running) return
        running = true
        viewModelScope.launch {
            try {
                result =
                    withContext(Dispatchers.Default) {
                        compare(getApplication<Application>().assets, threads)
                    }
                error = null
            } catch (failure: Exception) {
                result = null
                error = failure.message ?: failure.toString()
            } finally {
                running = false
            }
        }
    }
}

class MainActivity : ComponentActivity() {
    private val model: ComparisonModel by viewModels()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContent { MaterialTheme { Surface(Modifier.fillMaxSize()) { Screen(model) } } }
    }
}

@Composable
private fun Screen(model: ComparisonModel) {
    Column(Modifier.padding(24.dp), Arrangement.spacedBy(16.dp)) {
        Text("Dense against pruned", style = MaterialTheme.typography.headlineSmall)
        Row(horizontalArrangement = Arrangement.spacedBy(8.dp)) {
            for (count in listOf(1, 2, 4)) {
                FilterChip(
                    selected = model.threads == count,
                    onClick = { model.threads = count },
                    label = { Text(if (count == 1) "1 thread" else "$count threads") },
                )
            }
        }
        Button(onClick = model::measure, enabled = !model.running) { Text("Measure") }
        if (model.running) LinearProgressIndicator()
        model.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
        model.result?.let { Latencies(it) }
    }
}

@Composable
private fun Latencies(result: Result) {
    val slowest = maxOf(result.denseMillis, result.packedMillis)
    Bar("dense", result.denseMillis, slowest)
    Bar("packed", result.packedMillis, slowest)
    Text("%.1f times faster".format(result.denseMillis / result.packedMillis))
    Text(
        "Median of ${result.runs} alternating runs, ${result.packedLayers} packed layers, " +
            "outputs at most %.1e apart".format(result.largestDifference),
        style = MaterialTheme.typography.bodySmall,
    )
}

@Composable
private fun Bar(name: String, millis: Double, slowest: Double) {
    Column {
        Text("$name  %.2f ms".format(millis))
        LinearProgressIndicator(progress = { (millis / slowest).toFloat() })
    }
}
