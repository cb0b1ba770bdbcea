/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* A net function as people write it down, key by key. */

#include <ctype.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_ether.h>

#include "vfn_net_args.h"

/* A whole decimal number; *end points behind it. */
static bool
number(const char *s, const char **end, unsigned long min, unsigned long max, unsigned long *v)
{
	char *stop;

	if (!isdigit((unsigned char)*s))
		return false;
	errno = 0;
	*v = strtoul(s, &stop, 10);
	*end = stop;
	return errno == 0 && *v >= min && *v <= max;
}

static bool
parse_queues(const char *value, struct vfn_net_args *args)
{
	unsigned long v;

	if (!number(value, &value, 1, VFN_MAX_PAIRS, &v) || *value != '\0')
		return false;
	args->net.max_pairs = v;
	return true;
}

static bool
parse_mtu(const char *value, struct vfn_net_args *args)
{
	unsigned long v;

	if (!number(value, &value, 68, UINT16_MAX, &v) || *value != '\0')
		return false;
	args->net.mtu = v;
	return true;
}

static bool
parse_mac(const char *value, struct vfn_net_args *args)
{
	struct rte_ether_addr addr;

	if (rte_ether_unformat_addr(value, &addr) != 0 || !rte_is_valid_assigned_ether_addr(&addr))
		return false;
	memcpy(args->net.mac, addr.addr_bytes, sizeof(args->net.mac));
	return true;
}

static const char *const wiring_names[] = {
	[VFN_WIRING_LOOPBACK] = "loopback",
	[VFN_WIRING_WIRE] = "wire",
	[VFN_WIRING_SINK] = "sink",
	[VFN_WIRING_ETHDEV] = "ethdev",
	[VFN_WIRING_GEN] = "gen",
};

static bool
parse_wiring(const char *value, struct vfn_net_args *args)
{
	unsigned int i;

	for (i = 0; i < RTE_DIM(wiring_names) && strcmp(value, wiring_names[i]) != 0; i++)
		;
	args->wiring_given = true;
	args->net.wiring.kind = i;
	return i < RTE_DIM(wiring_names);
}

static bool
parse_gen(const char *value, struct vfn_net_args *args)
{
	unsigned long v;

	if (!number(value, &value, RTE_ETHER_HDR_LEN, VFN_MAX_PLAIN_FRAME, &v) || *value != '\0')
		return false;
	args->net.wiring.gen = v;
	return true;
}

static bool
parse_ethdev(const char *value, struct vfn_net_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->net.wiring.ethdev))
		return false;
	strcpy(args->net.wiring.ethdev, value);
	return true;
}

static bool
parse_offloads(const char *value, struct vfn_net_args *args)
{
	static const char *const names[] = {
		[VFN_OFFLOADS_ALL] = "all",
		[VFN_OFFLOADS_CSUM] = "csum",
		[VFN_OFFLOADS_OFF] = "off",
	};
	unsigned int i;

	for (i = 0; i < RTE_DIM(names) && strcmp(value, names[i]) != 0; i++)
		;
	args->net.offloads = i;
	return i < RTE_DIM(names);
}

static bool
parse_rate(const char *value, struct vfn_net_args *args)
{
	unsigned long v;

	if (!number(value, &value, 1, VFN_NET_RATE_MAX, &v) || *value != '\0')
		return false;
	args->net.rate_mbps = v;
	return true;
}

static bool
parse_peer(const char *value, struct vfn_net_args *args)
{
	if (*value == '\0' || strlen(value) >= sizeof(args->net.wiring.peer) ||
		strcmp(value, args->function.name) == 0)
		return false;
	strcpy(args->net.wiring.peer, value);
	return true;
}

static bool
parse_idle(const char *value, struct vfn_net_args *args)
{
	args->function.pollers.sleep = strcmp(value, "sleep") == 0;
	return args->function.pollers.sleep || strcmp(value, "busy") == 0;
}

/* "3", or a list with ranges in brackets, as EAL has them: "[1,4-6]". */
static bool
parse_poll_cpu(const char *value, struct vfn_net_args *args)
{
	bool list = *value == '[';
	unsigned int i;

	value += list;
	args->function.pollers.nb_cpus = 0;
	do {
		unsigned long first, last;

		if (!number(value, &value, 0, CPU_SETSIZE - 1, &first))
			return false;
		last = first;
		if (*value == '-' && !number(value + 1, &value, first, CPU_SETSIZE - 1, &last))
			return false;
		for (; first <= last; first++) {
			for (i = 0; i < args->function.pollers.nb_cpus; i++)
				if (args->function.pollers.cpu[i] == first)
					return false;
			if (args->function.pollers.nb_cpus == VFN_MAX_POLLERS)
				return false;
			args->function.pollers.cpu[args->function.pollers.nb_cpus++] = first;
		}
	} while (list && *value++ == ',');
	return list ? value[-1] == ']' && *value == '\0' : *value == '\0';
}

static bool
parse_dma(const char *value, struct vfn_net_args *args)
{
	static const char *const names[] = {
		[VFN_DMA_DIRECT] = "direct",
		[VFN_DMA_IOMMU] = "iommu",
		[VFN_DMA_BOUNCE] = "bounce",
	};
	unsigned int i;

	for (i = VFN_DMA_DIRECT; i < RTE_DIM(names) && strcmp(value, names[i]) != 0; i++)
		;
	args->function.dma = i;
	return i < RTE_DIM(names);
}

static bool
parse_pool(const char *value, struct vfn_net_args *args)
{
	return vfn_pool_parse(value, &args->function.pool);
}

static bool
parse_fault(const char *value, struct vfn_net_args *args)
{
	static const struct {
		const char *name;
		enum vfn_fault fault;
	} faults[] = {
		{"no-log", VFN_FAULT_NO_DIRTY},
		{"no-used-log", VFN_FAULT_NO_USED_DIRTY},
		{"no-suspend", VFN_FAULT_NO_SUSPEND},
		{"no-retry", VFN_FAULT_NO_RETRY},
		{"no-flush", VFN_FAULT_NO_FLUSH},
	};
	unsigned int i;

	for (i = 0; i < RTE_DIM(faults) && strcmp(value, faults[i].name) != 0; i++)
		;
	if (i == RTE_DIM(faults))
		return false;
	args->function.faults = faults[i].fault;
	return true;
}

const struct vfn_net_arg vfn_net_args_known[] = {
	{"queues", "1 to " RTE_STR(VFN_MAX_PAIRS) " queue pairs", parse_queues, "1"},
	{"mac", "a unicast address such as 02:00:00:00:00:01", parse_mac, "by the name"},
	{"mtu", "68 to 65535", parse_mtu, "none"},
	{"port", "loopback, wire, sink, ethdev or gen", parse_wiring, "loopback"},
	{"peer", "the name of another device", parse_peer, "none"},
	{"ethdev", "the name of a DPDK port", parse_ethdev, "none"},
	{"gen", "14 to 65534", parse_gen, "none"},
	{"offloads", "off, csum or all", parse_offloads, "all"},
	{"rate-mbps", "1 to 1000000", parse_rate, "none"},
	{"poll-cpu", "a CPU or a list such as [2,4-6], at most " RTE_STR(VFN_MAX_POLLERS),
		parse_poll_cpu, "any", true},
	{"idle", "busy or sleep", parse_idle, "busy", true},
	{"dma", "direct, iommu or bounce", parse_dma, "direct, not offered", true},
	{"pool",
		"ADDR+LEN or a list such as [0x7fff0000+64K,2G+64M], at most " RTE_STR(
			VFN_POOL_RANGES) ", without overlaps",
		parse_pool, "none", true},
	{"fault", "no-log, no-used-log, no-suspend, no-retry or no-flush", parse_fault, "none",
		true},
};

const unsigned int vfn_nb_net_args = RTE_DIM(vfn_net_args_known);

int
vfn_net_args_init(struct vfn_net_args *args, const char *name)
{
	uint32_t hash = 5381;
	const char *c;

	*args = (struct vfn_net_args){.function.class = &vfn_net_class, .net.max_pairs = 1};
	if (strlen(name) >= sizeof(args->function.name))
		return -EINVAL;
	strcpy(args->function.name, name);
	/* A locally administered address that stays the same for a name. */
	for (c = name; *c != '\0'; c++)
		hash = hash * 33 + (unsigned char)*c;
	args->net.mac[0] = 0x02;
	args->net.mac[1] = 'v';
	memcpy(args->net.mac + 2, &hash, sizeof(hash));
	return 0;
}

/* An argument that is for one kind of port selects that, and cannot be had with another one. */
static int
select_wiring(struct vfn_net_args *args, const char *key, bool given, enum vfn_wiring port,
	char *why, size_t size)
{
	if (given && !args->wiring_given) {
		args->net.wiring.kind = port;
		args->wiring_given = true;
	}
	if (given && args->net.wiring.kind != port)
		snprintf(why, size, "\"%s\" needs port=%s", key, wiring_names[port]);
	else if (!given && args->net.wiring.kind == port)
		snprintf(why, size, "\"port=%s\" needs \"%s\"", wiring_names[port], key);
	else
		return 0;
	return -EINVAL;
}

int
vfn_any_args_check(const struct vfn_function_params *function, char *why, size_t size)
{
	const bool bounce = function->dma == VFN_DMA_BOUNCE, pool = function->pool.nb_ranges > 0;

	if (bounce == pool)
		return 0;
	snprintf(why, size, bounce ? "\"dma=bounce\" needs \"pool\"" : "\"pool\" needs dma=bounce");
	return -EINVAL;
}

int
vfn_net_args_check(struct vfn_net_args *args, char *why, size_t size)
{
	const struct vfn_net_wiring_params *wiring = &args->net.wiring;
	int ret;

	if (wiring->peer[0] != '\0' && wiring->kind != VFN_WIRING_WIRE) {
		snprintf(why, size, "\"peer\" needs port=wire");
		return -EINVAL;
	}
	ret = select_wiring(args, "gen", wiring->gen != 0, VFN_WIRING_GEN, why, size);
	if (ret == 0)
		ret = select_wiring(
			args, "ethdev", wiring->ethdev[0] != '\0', VFN_WIRING_ETHDEV, why, size);
	return ret;
}
