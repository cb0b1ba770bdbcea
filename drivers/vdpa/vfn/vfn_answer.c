/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the telemetry commands of all files share: every command has an answer in words, since
 * telemetry itself says no more than null. On telemetry's threads.
 */

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <rte_common.h>
#include <rte_version.h>

#include "vfn_telemetry.h"

#if RTE_VERSION < RTE_VERSION_NUM(23, 3, 0, 0)
#define rte_tel_data_add_dict_uint rte_tel_data_add_dict_u64
#endif

#define MAX_COMMANDS 32

/* Complete before telemetry has threads. */
static struct {
	const char *name;
	telemetry_cb handler;
} commands[MAX_COMMANDS];
static unsigned int nb_commands;

/* Of the command that this thread carries out. */
static __thread char refusal[RTE_TEL_MAX_STRING_LEN];
static __thread bool incomplete;

int
vfn_telemetry_refuse(const struct vfn_dev *dev, int ret, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(refusal, sizeof(refusal), fmt, ap);
	va_end(ap);
	if (dev != NULL)
		DEV_LOG(ERR, dev, "telemetry: %s", refusal);
	else
		DRV_LOG(ERR, "telemetry: %s", refusal);
	return ret;
}

void
vfn_tell_string(struct rte_tel_data *d, const char *key, const char *value)
{
	char cut[RTE_TEL_MAX_STRING_LEN];

	/* A path may be longer than what telemetry can say. */
	if (strlen(value) >= sizeof(cut)) {
		snprintf(cut, sizeof(cut), "%.*s...", (int)sizeof(cut) - 4, value);
		value = cut;
	}
	incomplete |= rte_tel_data_add_dict_string(d, key, value) != 0;
}

void
vfn_tell_int(struct rte_tel_data *d, const char *key, int value)
{
	incomplete |= rte_tel_data_add_dict_int(d, key, value) != 0;
}

void
vfn_tell_uint(struct rte_tel_data *d, const char *key, uint64_t value)
{
	incomplete |= rte_tel_data_add_dict_uint(d, key, value) != 0;
}

void
vfn_tell_hex(struct rte_tel_data *d, const char *key, uint64_t value)
{
	char text[sizeof("0x0123456789abcdef")];

	snprintf(text, sizeof(text), "0x%" PRIx64, value);
	vfn_tell_string(d, key, text);
}

void
vfn_tell_mac(struct rte_tel_data *d, const uint8_t mac[6])
{
	char text[sizeof("01:23:45:67:89:ab")];

	snprintf(text, sizeof(text), "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
		mac[3], mac[4], mac[5]);
	vfn_tell_string(d, "mac", text);
}

static int
carry_out(const char *name, const char *params, struct rte_tel_data *d)
{
	int ret = -ENOSYS;
	unsigned int i;

	refusal[0] = '\0';
	incomplete = false;
	for (i = 0; i < nb_commands; i++)
		if (strcmp(commands[i].name, name) == 0)
			ret = commands[i].handler(name, params, d);
	if (ret >= 0 && incomplete)
		ret = vfn_telemetry_refuse(NULL, -ENOSPC, "%s has more to say than fits", name);
	if (ret >= 0)
		return ret;
	if (refusal[0] == '\0')
		vfn_telemetry_refuse(NULL, ret, "%s", strerror(-ret));
	ret = rte_tel_data_start_dict(d);
	return ret < 0 ? ret : rte_tel_data_add_dict_string(d, "error", refusal);
}

void
vfn_telemetry_command(const char *name, telemetry_cb handler, const char *help)
{
	RTE_VERIFY(nb_commands < MAX_COMMANDS);
	commands[nb_commands].name = name;
	commands[nb_commands++].handler = handler;
	if (rte_telemetry_register_cmd(name, carry_out, help) != 0)
		DRV_LOG(ERR, "telemetry does not take the command %s", name);
}
