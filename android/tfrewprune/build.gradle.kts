// SPDX-License-Identifier: Apache-2.0
// The library: Java classes and, by CMake and the NDK, the native half for three ABIs.
plugins {
    id("com.android.library")
}

android {
    namespace = "io.tfrewprune"
    compileSdk = 35
    ndkVersion = "27.2.12479018"

    defaultConfig {
        minSdk = 21
        consumerProguardFiles("consumer-rules.pro")
        ndk {
            abiFilters += listOf("arm64-v8a", "armeabi-v7a", "x86_64")
        }
        externalNativeBuild {
            cmake {
                arguments += listOf("-DANDROID_STL=none", "-DTFREWPRUNE_JNI=ON")
                targets += "tfrewprune_delegate"
            }
        }
    }

    externalNativeBuild {
        cmake {
            path = file("../../tflite_ops/CMakeLists.txt")
        }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    // Only the interface Delegate; the app chooses the runtime.
    compileOnly("com.google.ai.edge.litert:litert-api:1.4.0")
}
