/* SPDX-License-Identifier: Apache-2.0
 *
 * The marks that count_instructions.c looks for, to be called from Python.
 */
void begin_region(void) { __asm__ volatile("hint #0x70"); }
void end_region(void) { __asm__ volatile("hint #0x71"); }
