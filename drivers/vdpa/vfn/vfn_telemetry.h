/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* What telemetry handlers share. */

#ifndef VFN_TELEMETRY_H
#define VFN_TELEMETRY_H

#include <rte_telemetry.h>

#include "vfn_drv.h"

/*
 * The device that the parameters "NAME[,REST]" name, with its lock held, and REST ("" if there is
 * none). NULL, with the reason logged, if there is no such device.
 */
struct vfn_dev *vfn_telemetry_dev(const char *params, const char **rest);

/* Say why a command is refused, to whoever asked and in the log; dev may be NULL. Returns ret. */
int vfn_telemetry_refuse(const struct vfn_dev *dev, int ret, const char *fmt, ...)
	__rte_format_printf(3, 4);

/*
 * Into a dictionary. What does not fit is remembered, and makes an error of the answer: nothing is
 * left out without a word.
 */
void vfn_tell_string(struct rte_tel_data *d, const char *key, const char *value);
void vfn_tell_int(struct rte_tel_data *d, const char *key, int value);
void vfn_tell_uint(struct rte_tel_data *d, const char *key, uint64_t value);
void vfn_tell_hex(struct rte_tel_data *d, const char *key, uint64_t value);
void vfn_tell_mac(struct rte_tel_data *d, const uint8_t mac[6]);

/*
 * Register a command. Where the handler returns a negative errno the answer is {"error": text}:
 * that of vfn_telemetry_refuse(), or of the errno.
 */
void vfn_telemetry_command(const char *name, telemetry_cb handler, const char *help);

/* Commands of the files with these names, to be called once: vfn_register.c. */
void vfn_telemetry_register(void);
void vfn_config_register(void);
void vfn_blk_register(void);
void vfn_saved_register(void);
void vfn_kernel_register(void);

#endif /* VFN_TELEMETRY_H */
