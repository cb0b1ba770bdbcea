/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Segmentation in software, see net_gso.h. The headers are a guest's: each offset is checked
 * against what there is of the frame before anything is read there. Poller.
 *
 * librte_gso wants mbufs and leaves checksums to a network card: frames would be copied into the
 * one, and gone through for the other.
 */

#include <string.h>

#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_tcp.h>
#include <rte_udp.h>

#include "gso.h"

#define MAX_TAGS 2
#define FRAG_LEN 8u /* IPv6 fragment header (RFC 8200, 4.5) */

static uint16_t
get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static void
put16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static void
put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* Sums are of words as they lie in memory (RFC 1071). */
static uint16_t
fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* ---- headers ---- */

static bool
parse_ipv4(struct vfn_gso *g, uint32_t have)
{
	const uint8_t *ip = g->frame + g->ip;
	uint32_t ihl;

	if (have - g->ip < sizeof(struct rte_ipv4_hdr) || ip[0] >> 4 != 4)
		return false;
	ihl = (ip[0] & 0xf) * 4;
	if (ihl < sizeof(struct rte_ipv4_hdr) || have - g->ip < ihl)
		return false;
	/* a fragment itself */
	if (get16(ip + 6) & (RTE_IPV4_HDR_MF_FLAG | RTE_IPV4_HDR_OFFSET_MASK))
		return false;
	g->proto = ip[9];
	g->l4 = g->body = g->ip + ihl;
	g->sum = rte_raw_cksum(ip + 12, 8);
	return true;
}

/*
 * Extension headers up to TCP or UDP. For fragments, body is where the part ends that every one of
 * them has, and *next the place of the number of what follows (RFC 8200, 4.5). *routed: the packet
 * has a way to go to the address that is in the pseudo header.
 */
static bool
parse_ipv6(struct vfn_gso *g, uint32_t have, uint32_t *next, bool *routed)
{
	const uint8_t *f = g->frame;
	uint32_t at = g->ip + sizeof(struct rte_ipv6_hdr);

	if (have < at || f[g->ip] >> 4 != 6)
		return false;
	g->ipv6 = true;
	g->proto = f[g->ip + 6];
	g->sum = rte_raw_cksum(f + g->ip + 8, 32);
	g->body = at;
	*next = g->ip + 6;
	while (g->proto == IPPROTO_HOPOPTS || g->proto == IPPROTO_ROUTING ||
		g->proto == IPPROTO_DSTOPTS) {
		uint32_t len;

		if (have - at < 8)
			return false;
		len = (f[at + 1] + 1) * 8;
		if (have - at < len)
			return false;
		if (g->proto != IPPROTO_DSTOPTS) {
			*next = at;
			g->body = at + len;
		}
		if (g->proto == IPPROTO_ROUTING && f[at + 3] != 0)
			*routed = true;
		g->proto = f[at];
		at += len;
	}
	g->l4 = at;
	return true;
}

/* The part that each fragment has, with a fragment header in IPv6. */
static void
fragment_head(struct vfn_gso *g, uint32_t next, uint32_t ident)
{
	uint8_t *frag = g->head + g->body;

	if (!g->ipv6) {
		/* without fragments it may have had none (RFC 6864) */
		if (get16(g->head + g->ip + 4) == 0)
			put16(g->head + g->ip + 4, ident);
		return;
	}
	frag[0] = g->head[next];
	frag[1] = 0;
	put32(frag + 4, ident);
	g->head[next] = IPPROTO_FRAGMENT;
	g->head_len += FRAG_LEN;
}

bool
vfn_gso_start(struct vfn_gso *g, const struct virtio_net_hdr *hdr, uint8_t *frame, uint32_t have,
	uint32_t len, uint32_t ident)
{
	uint8_t type = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
	bool udp = type == VIRTIO_NET_HDR_GSO_UDP, routed = false;
	uint32_t at = RTE_ETHER_HDR_LEN, next = 0, l4_len, tags;
	uint16_t ether_type, was;

	*g = (struct vfn_gso){.frame = frame, .len = len, .size = hdr->gso_size};
	g->ecn = hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN;
	if (have < at)
		return false;
	ether_type = get16(frame + at - 2);
	for (tags = 0; tags < MAX_TAGS; tags++) {
		if (ether_type != RTE_ETHER_TYPE_VLAN && ether_type != RTE_ETHER_TYPE_QINQ)
			break;
		at += RTE_VLAN_HLEN;
		if (have < at)
			return false;
		ether_type = get16(frame + at - 2);
	}
	g->ip = at;
	if (ether_type == RTE_ETHER_TYPE_IPV4 && type != VIRTIO_NET_HDR_GSO_TCPV6) {
		if (!parse_ipv4(g, have))
			return false;
	} else if (ether_type == RTE_ETHER_TYPE_IPV6 && type != VIRTIO_NET_HDR_GSO_TCPV4) {
		if (!parse_ipv6(g, have, &next, &routed))
			return false;
	} else {
		return false;
	}
	if (g->proto != (udp ? IPPROTO_UDP : IPPROTO_TCP) || hdr->csum_start != g->l4)
		return false;
	if (udp) {
		if (have - g->l4 < sizeof(struct rte_udp_hdr) ||
			hdr->csum_offset != offsetof(struct rte_udp_hdr, dgram_cksum))
			return false;
	} else {
		uint32_t tcp_len;

		if (have - g->l4 < sizeof(struct rte_tcp_hdr) ||
			hdr->csum_offset != offsetof(struct rte_tcp_hdr, cksum))
			return false;
		tcp_len = (frame[g->l4 + 12] >> 4) * 4;
		if (tcp_len < sizeof(struct rte_tcp_hdr) || have - g->l4 < tcp_len)
			return false;
		g->body = g->l4 + tcp_len;
	}
	l4_len = len - g->l4;
	if (l4_len > UINT16_MAX)
		return false;
	g->sum = fold(g->sum + rte_cpu_to_be_16(g->proto));
	if (routed) {
		/* Only the sender knows the last address, and has summed it up. */
		memcpy(&was, frame + g->l4 + hdr->csum_offset, sizeof(was));
		g->sum = fold(was + (uint16_t)~rte_cpu_to_be_16(l4_len));
	}
	memcpy(g->head, frame, g->body);
	g->head_len = g->body;
	if (udp && len - g->body > g->size) {
		g->size &= ~7u;
		fragment_head(g, next, ident);
	}
	if (g->size == 0)
		return false;
	g->nb = RTE_MAX((len - g->body + g->size - 1) / g->size, 1u);
	/* What an IPv4 header's length can say. */
	return g->nb <= VFN_GSO_MAX && vfn_gso_len(g, 0) - g->ip <= UINT16_MAX;
}

/* ---- segments ---- */

uint32_t
vfn_gso_len(const struct vfn_gso *g, uint32_t i)
{
	return g->head_len + RTE_MIN(g->size, g->len - g->body - i * g->size);
}

static void
put_checksum(const struct vfn_gso *g, uint8_t *l4, uint32_t len, uint32_t offset, bool partial)
{
	uint32_t sum = g->sum + rte_cpu_to_be_16(len);
	uint16_t word = 0;

	memcpy(l4 + offset, &word, sizeof(word));
	if (!partial)
		sum += rte_raw_cksum(l4, len);
	word = partial ? fold(sum) : ~fold(sum);
	/* "No checksum", to UDP. */
	if (word == 0 && g->proto == IPPROTO_UDP)
		word = 0xffff;
	memcpy(l4 + offset, &word, sizeof(word));
}

static void
tcp_segment(const struct vfn_gso *g, uint8_t *seg, uint32_t i)
{
	uint8_t *tcp = seg + g->l4;
	uint32_t seq;

	memcpy(&seq, tcp + offsetof(struct rte_tcp_hdr, sent_seq), sizeof(seq));
	put32(tcp + offsetof(struct rte_tcp_hdr, sent_seq), rte_be_to_cpu_32(seq) + i * g->size);
	if (i + 1 < g->nb)
		tcp[13] &= ~(RTE_TCP_FIN_FLAG | RTE_TCP_PSH_FLAG);
	if (i > 0 && g->ecn)
		tcp[13] &= ~RTE_TCP_CWR_FLAG;
}

uint8_t *
vfn_gso_make(struct vfn_gso *g, uint32_t i, bool partial, struct virtio_net_hdr *hdr)
{
	/* The head goes before its piece, over what went out with the last one. */
	uint8_t *seg = g->frame + g->body + i * g->size - g->head_len, *ip = seg + g->ip;
	uint32_t len = vfn_gso_len(g, i), offset;
	bool tcp = g->proto == IPPROTO_TCP, fragment = !tcp && g->nb > 1;
	uint16_t sum;

	offset = tcp ? offsetof(struct rte_tcp_hdr, cksum) :
		       offsetof(struct rte_udp_hdr, dgram_cksum);
	*hdr = (struct virtio_net_hdr){0};
	/* A datagram has one checksum, in the first fragment. */
	if (fragment && i == 0)
		put_checksum(g, g->frame + g->l4, g->len - g->l4, offset, false);
	memcpy(seg, g->head, g->head_len);
	if (tcp)
		tcp_segment(g, seg, i);
	if (fragment) {
		uint16_t more = i + 1 < g->nb;

		if (g->ipv6)
			put16(seg + g->body + 2, i * g->size | more);
		else
			put16(ip + 6, i * g->size / 8 | (more ? RTE_IPV4_HDR_MF_FLAG : 0));
	} else {
		put_checksum(g, seg + g->l4, len - g->l4, offset, partial);
		if (partial)
			*hdr = (struct virtio_net_hdr){.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
				.csum_start = g->l4,
				.csum_offset = offset};
	}
	if (g->ipv6) {
		put16(ip + 4, len - g->ip - sizeof(struct rte_ipv6_hdr));
		return seg;
	}
	put16(ip + 2, len - g->ip);
	if (tcp)
		put16(ip + 4, get16(ip + 4) + i);
	put16(ip + 10, 0);
	sum = ~rte_raw_cksum(ip, (ip[0] & 0xf) * 4);
	memcpy(ip + 10, &sum, sizeof(sum));
	return seg;
}
