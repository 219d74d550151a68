/* SPDX-License-Identifier: Apache-2.0
 *
 * The C interface of libtfrewprune_delegate.so, for hosts in C, C++ or any
 * language that calls C. Every function may be called from any thread; a
 * delegate belongs to one interpreter at a time. Options are pairs of strings,
 * the same in both ways:
 *
 *   threads    "auto" (as many as the interpreter has) or "1" to "64"
 *   isa        "auto", "avx512", "avx2", "neon", "portable" or "reference"
 *   driver     "auto" or the name of one, for measurements
 *   tune       "off", or "once": the first allocation of tensors measures the
 *              best few drivers of each layer
 *   tune_ms    how long that may take, "1" to "60000"; "50" without it
 *   cache_path a file that remembers what was measured
 *   precision  "float32", or "float16": products and short sums in halves
 *              where CPU and layer allow it, an error of about a thousandth
 *   log_level  "error", "warning", "info" or "debug"
 */
#ifndef TFREWPRUNE_TFREWPRUNE_H_
#define TFREWPRUNE_TFREWPRUNE_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct TfLiteDelegate;

/* TFLite's interpreter: a delegate for ModifyGraphWithDelegate,
 * TfLiteInterpreterOptionsAddDelegate or TfLiteExternalDelegateCreate. Returns
 * NULL, after a call of report_error (may be NULL), for options that are not
 * understood. Destroy the interpreter first. */
struct TfLiteDelegate* tflite_plugin_create_delegate(
    const char* const* options_keys, const char* const* options_values,
    size_t num_options, void (*report_error)(const char* message));
void tflite_plugin_destroy_delegate(struct TfLiteDelegate* delegate);

/* LiteRT 2.1.6 or newer: every CompiledModel that is created with this
 * LiteRtEnvironment from now on runs packed layers. find_symbol returns the
 * address of a function of LiteRT's C API, for example by dlsym. Returns 0; or
 * 1, after a call of report_error (may be NULL). */
int tfrewprune_register_accelerator(void* environment,
                                    void* (*find_symbol)(const char* name),
                                    const char* const* options_keys,
                                    const char* const* options_values,
                                    size_t num_options,
                                    void (*report_error)(const char* message));

/* "major.minor.patch". */
const char* tfrewprune_version(void);

/* Of a delegate: how many nodes of its graphs it runs, by which kernels. */
int tfrewprune_claimed_nodes(struct TfLiteDelegate* delegate);
const char* tfrewprune_isa_name(struct TfLiteDelegate* delegate);

#ifdef __cplusplus
}
#endif

#endif /* TFREWPRUNE_TFREWPRUNE_H_ */
