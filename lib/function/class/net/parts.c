/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Device parts of the net class: what came through the control queue. Control. */

#include <rte_ether.h>

#include "../../parts.h"
#include "net.h"

static void
put_command(
	struct vfn_parts_writer *w, uint8_t class, uint8_t command, const void *data, uint32_t len)
{
	struct vfn_part part = {.type = VFN_PART_NET_CVQ};

	part.selector.cvq.class = class;
	part.selector.cvq.command = command;
	vfn_part_put(w, part, data, len);
}

/* As in VIRTIO_NET_CTRL_MAC_TABLE_SET; one that did not fit becomes one that does not. */
static size_t
table_write(const struct vfn_mac_table *table, uint8_t *to)
{
	uint32_t n = table->all ? VFN_MAC_TABLE + 1 : table->n;

	memset(to + sizeof(n), 0, n * RTE_ETHER_ADDR_LEN);
	memcpy(to, &n, sizeof(n));
	memcpy(to + sizeof(n), table->addr, table->n * RTE_ETHER_ADDR_LEN);
	return sizeof(n) + n * RTE_ETHER_ADDR_LEN;
}

/* What the driver has said through the control queue, as the commands that would say it again. */
void
vfn_net_parts_get(struct vfn_function *fn, struct vfn_parts_writer *w)
{
	const struct vfn_net_regs *r = vfn_net_regs(fn);
	const struct vfn_filter *f = &r->filter;
	uint8_t tables[2 * (sizeof(uint32_t) + (VFN_MAC_TABLE + 1) * RTE_ETHER_ADDR_LEN)];
	uint64_t offloads = fn->regs.driver_features & VFN_CTRL_GUEST_OFFLOADS & ~r->offloads_off;
	size_t len;
	unsigned int cmd;

	for (cmd = 0; cmd < sizeof(f->mode); cmd++)
		if (vfn_has(fn,
			    cmd <= VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX :
								 VIRTIO_NET_F_CTRL_RX_EXTRA))
			put_command(
				w, VIRTIO_NET_CTRL_RX, cmd, &f->mode[cmd], sizeof(f->mode[cmd]));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_RX)) {
		len = table_write(&f->unicast, tables);
		len += table_write(&f->multicast, tables + len);
		put_command(w, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET, tables, len);
	}
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_MAC_ADDR))
		put_command(w, VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET, r->mac,
			sizeof(r->mac));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_VLAN))
		put_command(w, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, f->vlan,
			sizeof(f->vlan));
	if (vfn_has(fn, VIRTIO_NET_F_MQ))
		put_command(w, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, &r->curr_pairs,
			sizeof(r->curr_pairs));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS))
		put_command(w, VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
			&offloads, sizeof(offloads));
}

/* The whole table, where the command has one of its entries. */
static bool
set_vlans(struct vfn_regs *regs, const struct vfn_part *part, const uint8_t *value)
{
	struct vfn_filter *f = &vfn_net_regs_in(regs)->filter;

	if (part->selector.cvq.command != VIRTIO_NET_CTRL_VLAN_ADD ||
		!vfn_regs_have(regs, VIRTIO_NET_F_CTRL_VLAN) || part->length != sizeof(f->vlan))
		return false;
	memcpy(f->vlan, value, sizeof(f->vlan));
	return true;
}

int
vfn_net_parts_set(const struct vfn_function *fn, struct vfn_regs *regs, const struct vfn_part *part,
	const uint8_t *value, const char **why)
{
	const size_t used = sizeof(part->selector.cvq);
	size_t i;

	if (part->type != VFN_PART_NET_CVQ)
		return -ENOTSUP;
	*why = "its selector cannot be";
	for (i = used; i < sizeof(part->selector.raw); i++)
		if (part->selector.raw[i] != 0)
			return -EINVAL;
	*why = "the control queue would refuse it";
	if (part->selector.cvq.class == VIRTIO_NET_CTRL_VLAN)
		return set_vlans(regs, part, value) ? 0 : -EINVAL;
	if (vfn_net_ctrl_command(vfn_net(fn), regs, part->selector.cvq.class,
		    part->selector.cvq.command, value, part->length) != VIRTIO_NET_OK)
		return -EINVAL;
	return 0;
}
