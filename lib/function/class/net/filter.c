/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Receive filters: which frames the driver of a function wants (virtio 1.3, 5.1.6.5.1 to
 * 5.1.6.5.3). Commands are control, while the function is quiet; vfn_filter_accepts() is poller.
 */

#include <string.h>

#include <rte_byteorder.h>
#include <rte_ether.h>

#include "net.h"

/* As QEMU has it: all is received until the driver says what it wants. */
void
vfn_filter_reset(struct vfn_filter *filter)
{
	memset(filter, 0, sizeof(*filter));
	filter->mode[VIRTIO_NET_CTRL_RX_PROMISC] = 1;
}

/* 5.1.6.5.1: one byte, on or off. */
uint8_t
vfn_filter_rx_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd,
	const uint8_t *data, size_t len)
{
	struct vfn_filter *f = &vfn_net_regs_in(regs)->filter;
	unsigned int needs = cmd > VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX_EXTRA :
								 VIRTIO_NET_F_CTRL_RX;

	(void)net;
	if (!vfn_regs_have(regs, needs) || cmd >= sizeof(f->mode) || len != 1 || data[0] > 1)
		return VIRTIO_NET_ERR;
	f->mode[cmd] = data[0];
	return VIRTIO_NET_OK;
}

/* Bytes of a table: a le32 count and as many addresses; 0 if they are not there. */
static size_t
table_len(const uint8_t *data, size_t len)
{
	uint32_t n;

	if (len < sizeof(n))
		return 0;
	memcpy(&n, data, sizeof(n));
	n = rte_le_to_cpu_32(n);
	if (n > (len - sizeof(n)) / RTE_ETHER_ADDR_LEN)
		return 0;
	return sizeof(n) + (size_t)n * RTE_ETHER_ADDR_LEN;
}

static void
table_read(struct vfn_mac_table *table, const uint8_t *data, size_t len)
{
	size_t n = (len - sizeof(uint32_t)) / RTE_ETHER_ADDR_LEN;

	/* What does not fit is not filtered: the driver gets too much rather than too little. */
	table->all = n > VFN_MAC_TABLE;
	table->n = table->all ? 0 : n;
	memcpy(table->addr, data + sizeof(uint32_t), table->n * RTE_ETHER_ADDR_LEN);
}

/* 5.1.6.5.2 */
uint8_t
vfn_filter_mac_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd,
	const uint8_t *data, size_t len)
{
	struct vfn_net_regs *r = vfn_net_regs_in(regs);
	struct rte_ether_addr addr;
	size_t unicast, multicast;

	(void)net;
	switch (cmd) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		/* A command is taken as a whole or not at all. */
		unicast = table_len(data, len);
		multicast = table_len(data + unicast, len - unicast);
		if (!vfn_regs_have(regs, VIRTIO_NET_F_CTRL_RX) || unicast == 0 || multicast == 0 ||
			unicast + multicast != len)
			return VIRTIO_NET_ERR;
		table_read(&r->filter.unicast, data, unicast);
		table_read(&r->filter.multicast, data + unicast, multicast);
		return VIRTIO_NET_OK;
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		if (!vfn_regs_have(regs, VIRTIO_NET_F_CTRL_MAC_ADDR) || len != sizeof(addr))
			return VIRTIO_NET_ERR;
		memcpy(&addr, data, sizeof(addr));
		if (!rte_is_valid_assigned_ether_addr(&addr))
			return VIRTIO_NET_ERR;
		memcpy(r->mac, data, sizeof(r->mac));
		return VIRTIO_NET_OK;
	}
	return VIRTIO_NET_ERR;
}

/* 5.1.6.5.3 */
uint8_t
vfn_filter_vlan_command(const struct vfn_net *net, struct vfn_regs *regs, uint8_t cmd,
	const uint8_t *data, size_t len)
{
	struct vfn_filter *f = &vfn_net_regs_in(regs)->filter;
	uint16_t vid;

	(void)net;
	if (!vfn_regs_have(regs, VIRTIO_NET_F_CTRL_VLAN) || len != sizeof(vid))
		return VIRTIO_NET_ERR;
	memcpy(&vid, data, sizeof(vid));
	vid = rte_le_to_cpu_16(vid);
	if (vid >= VFN_NB_VLANS)
		return VIRTIO_NET_ERR;
	if (cmd == VIRTIO_NET_CTRL_VLAN_ADD)
		f->vlan[vid / 8] |= 1 << vid % 8;
	else if (cmd == VIRTIO_NET_CTRL_VLAN_DEL)
		f->vlan[vid / 8] &= ~(1 << vid % 8);
	else
		return VIRTIO_NET_ERR;
	return VIRTIO_NET_OK;
}

/*
 * Is there anything to filter? Not without a control queue: behind vhost-user the front-end has
 * it, and filters itself or not at all.
 */
bool
vfn_filter_needed(const struct vfn_net *net)
{
	const struct vfn_regs *regs = &net->fn.regs;

	if (!vfn_regs_have(regs, VIRTIO_NET_F_CTRL_VQ) ||
		!regs->queue[vfn_ctrl_index(&net->fn, regs)].enabled)
		return false;
	if (vfn_regs_have(regs, VIRTIO_NET_F_CTRL_RX))
		return !vfn_net_regs_in(regs)->filter.mode[VIRTIO_NET_CTRL_RX_PROMISC];
	return vfn_regs_have(regs, VIRTIO_NET_F_CTRL_VLAN);
}

static bool
table_has(const struct vfn_mac_table *table, const struct rte_ether_addr *addr)
{
	uint16_t i;

	for (i = 0; i < table->n; i++)
		if (memcmp(table->addr[i], addr, sizeof(*addr)) == 0)
			return true;
	return table->all;
}

/* Only where vfn_filter_needed(). head: Ethernet header, and VLAN tag if len has room for it. */
bool
vfn_filter_accepts(const struct vfn_net *net, const uint8_t *head, uint32_t len)
{
	const struct vfn_net_regs *r = vfn_net_regs(&net->fn);
	const struct vfn_filter *f = &r->filter;
	struct rte_ether_hdr eth;
	struct rte_vlan_hdr tag;

	memcpy(&eth, head, sizeof(eth));
	if (vfn_has(&net->fn, VIRTIO_NET_F_CTRL_VLAN) && len >= sizeof(eth) + sizeof(tag) &&
		eth.ether_type == RTE_BE16(RTE_ETHER_TYPE_VLAN)) {
		uint16_t vid;

		memcpy(&tag, head + sizeof(eth), sizeof(tag));
		vid = rte_be_to_cpu_16(tag.vlan_tci) % VFN_NB_VLANS;
		if (!(f->vlan[vid / 8] & 1 << vid % 8))
			return false;
	}
	if (!vfn_has(&net->fn, VIRTIO_NET_F_CTRL_RX))
		return true;
	if (rte_is_broadcast_ether_addr(&eth.dst_addr))
		return !f->mode[VIRTIO_NET_CTRL_RX_NOBCAST];
	if (rte_is_multicast_ether_addr(&eth.dst_addr))
		return !f->mode[VIRTIO_NET_CTRL_RX_NOMULTI] &&
			(f->mode[VIRTIO_NET_CTRL_RX_ALLMULTI] ||
				table_has(&f->multicast, &eth.dst_addr));
	return !f->mode[VIRTIO_NET_CTRL_RX_NOUNI] &&
		(f->mode[VIRTIO_NET_CTRL_RX_ALLUNI] ||
			memcmp(&eth.dst_addr, r->mac, sizeof(eth.dst_addr)) == 0 ||
			table_has(&f->unicast, &eth.dst_addr));
}
