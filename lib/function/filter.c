/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Receive filters: which frames the driver of a function wants (virtio 1.3, 5.1.6.5.1 to
 * 5.1.6.5.3). Commands are control, with the port stopped; vfn_filter_accepts() is poller.
 */

#include <string.h>

#include <rte_byteorder.h>
#include <rte_ether.h>

#include "function.h"

/* As QEMU has it: all is received until the driver says what it wants. */
void
vfn_filter_reset(struct vfn_function *fn)
{
	memset(&fn->filter, 0, sizeof(fn->filter));
	fn->filter.mode[VIRTIO_NET_CTRL_RX_PROMISC] = 1;
}

/* 5.1.6.5.1: one byte, on or off. */
uint8_t
vfn_filter_rx_command(struct vfn_function *fn, uint8_t cmd, const uint8_t *data, size_t len)
{
	unsigned int needs = cmd > VIRTIO_NET_CTRL_RX_ALLMULTI ? VIRTIO_NET_F_CTRL_RX_EXTRA :
								 VIRTIO_NET_F_CTRL_RX;

	if (!vfn_has(fn, needs) || cmd >= sizeof(fn->filter.mode) || len != 1 || data[0] > 1)
		return VIRTIO_NET_ERR;
	fn->filter.mode[cmd] = data[0];
	return VIRTIO_NET_OK;
}

/* One table: a le32 count and as many addresses. Returns its bytes, 0 if they are not there. */
static size_t
table_read(struct vfn_mac_table *table, const uint8_t *data, size_t len)
{
	uint32_t n;

	if (len < sizeof(n))
		return 0;
	memcpy(&n, data, sizeof(n));
	n = rte_le_to_cpu_32(n);
	if (n > (len - sizeof(n)) / RTE_ETHER_ADDR_LEN)
		return 0;
	/* What does not fit is not filtered: the driver gets too much rather than too little. */
	table->all = n > VFN_MAC_TABLE;
	table->n = table->all ? 0 : n;
	memcpy(table->addr, data + sizeof(n), table->n * RTE_ETHER_ADDR_LEN);
	return sizeof(n) + (size_t)n * RTE_ETHER_ADDR_LEN;
}

/* 5.1.6.5.2 */
uint8_t
vfn_filter_mac_command(struct vfn_function *fn, uint8_t cmd, const uint8_t *data, size_t len)
{
	/* A table is taken as a whole or not at all. Control runs one command at a time. */
	static struct vfn_mac_table unicast, multicast;
	struct rte_ether_addr addr;
	size_t first, second;

	switch (cmd) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		if (!vfn_has(fn, VIRTIO_NET_F_CTRL_RX))
			return VIRTIO_NET_ERR;
		first = table_read(&unicast, data, len);
		if (first == 0)
			return VIRTIO_NET_ERR;
		second = table_read(&multicast, data + first, len - first);
		if (second == 0 || first + second != len)
			return VIRTIO_NET_ERR;
		fn->filter.unicast = unicast;
		fn->filter.multicast = multicast;
		return VIRTIO_NET_OK;
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		if (!vfn_has(fn, VIRTIO_NET_F_CTRL_MAC_ADDR) || len != sizeof(addr))
			return VIRTIO_NET_ERR;
		memcpy(&addr, data, sizeof(addr));
		if (!rte_is_valid_assigned_ether_addr(&addr))
			return VIRTIO_NET_ERR;
		vfn_config_set_mac(fn, data);
		return VIRTIO_NET_OK;
	}
	return VIRTIO_NET_ERR;
}

/* 5.1.6.5.3 */
uint8_t
vfn_filter_vlan_command(struct vfn_function *fn, uint8_t cmd, const uint8_t *data, size_t len)
{
	uint16_t vid;

	if (!vfn_has(fn, VIRTIO_NET_F_CTRL_VLAN) || len != sizeof(vid))
		return VIRTIO_NET_ERR;
	memcpy(&vid, data, sizeof(vid));
	vid = rte_le_to_cpu_16(vid);
	if (vid >= VFN_NB_VLANS)
		return VIRTIO_NET_ERR;
	if (cmd == VIRTIO_NET_CTRL_VLAN_ADD)
		fn->filter.vlan[vid / 8] |= 1 << vid % 8;
	else if (cmd == VIRTIO_NET_CTRL_VLAN_DEL)
		fn->filter.vlan[vid / 8] &= ~(1 << vid % 8);
	else
		return VIRTIO_NET_ERR;
	return VIRTIO_NET_OK;
}

/*
 * Is there anything to filter? Not without a control queue: behind vhost-user the front-end has
 * it, and filters itself or not at all.
 */
bool
vfn_filter_needed(const struct vfn_function *fn)
{
	if (!vfn_has(fn, VIRTIO_NET_F_CTRL_VQ) || !fn->queue[vfn_ctrl_index(fn)].enabled)
		return false;
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_RX))
		return !fn->filter.mode[VIRTIO_NET_CTRL_RX_PROMISC];
	return vfn_has(fn, VIRTIO_NET_F_CTRL_VLAN);
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
vfn_filter_accepts(const struct vfn_function *fn, const uint8_t *head, uint32_t len)
{
	const struct vfn_filter *f = &fn->filter;
	struct rte_ether_hdr eth;
	struct rte_vlan_hdr tag;

	memcpy(&eth, head, sizeof(eth));
	if (vfn_has(fn, VIRTIO_NET_F_CTRL_VLAN) && len >= sizeof(eth) + sizeof(tag) &&
		eth.ether_type == RTE_BE16(RTE_ETHER_TYPE_VLAN)) {
		uint16_t vid;

		memcpy(&tag, head + sizeof(eth), sizeof(tag));
		vid = rte_be_to_cpu_16(tag.vlan_tci) % VFN_NB_VLANS;
		if (!(f->vlan[vid / 8] & 1 << vid % 8))
			return false;
	}
	if (!vfn_has(fn, VIRTIO_NET_F_CTRL_RX))
		return true;
	if (rte_is_broadcast_ether_addr(&eth.dst_addr))
		return !f->mode[VIRTIO_NET_CTRL_RX_NOBCAST];
	if (rte_is_multicast_ether_addr(&eth.dst_addr))
		return !f->mode[VIRTIO_NET_CTRL_RX_NOMULTI] &&
			(f->mode[VIRTIO_NET_CTRL_RX_ALLMULTI] ||
				table_has(&f->multicast, &eth.dst_addr));
	return !f->mode[VIRTIO_NET_CTRL_RX_NOUNI] &&
		(f->mode[VIRTIO_NET_CTRL_RX_ALLUNI] ||
			memcmp(&eth.dst_addr, fn->config.mac, sizeof(eth.dst_addr)) == 0 ||
			table_has(&f->unicast, &eth.dst_addr));
}
