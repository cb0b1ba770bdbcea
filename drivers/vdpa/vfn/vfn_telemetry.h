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

void vfn_telemetry_add_hex(struct rte_tel_data *d, const char *key, uint64_t value);

/* Commands of the files with these names, to be called once: vfn_register.c. */
void vfn_telemetry_register(void);
void vfn_config_register(void);
void vfn_state_register(void);

#endif /* VFN_TELEMETRY_H */
