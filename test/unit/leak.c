/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Negative control of test_vring_names.py: a name that no header has. */

void vringh_leaks(void);

void
vringh_leaks(void)
{
}
