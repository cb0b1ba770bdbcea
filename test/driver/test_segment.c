/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Segmentation that the receiver leaves to the function. What has to arrive is not cut out of what
 * was sent: a builder makes both from what the packet is to say.
 */

#include <netinet/in.h>

#include "fn_harness.h"

#define N(f) BIT(VIRTIO_NET_F_##f)

#define SENDER	 (N(CSUM) | N(HOST_TSO4) | N(HOST_TSO6) | N(HOST_ECN) | N(HOST_UFO))
#define RECEIVER (N(GUEST_CSUM) | N(GUEST_TSO4) | N(GUEST_TSO6) | N(GUEST_ECN) | N(GUEST_UFO))

#define FIN 0x01
#define PSH 0x08
#define ACK 0x10
#define CWR 0x80

/* What a packet says. */
struct packet {
	unsigned int tags;
	bool ipv6, udp, ecn;
	unsigned int ip_options; /* bytes of these, or of each IPv6 extension header */
	bool hop, routing, dest; /* extension headers */
	uint8_t segments_left;
	unsigned int tcp_options;
	uint8_t flags;
	uint32_t seq;
	uint16_t id;
	uint16_t frag; /* as in the IPv4 header */
};

/* Where things came to lie. */
struct built {
	uint32_t ip, fragmentable, l4, payload;
};

static struct frame f, got, want;
static uint8_t data[65536];

/* ---- the builder ---- */

static uint8_t *
word(uint8_t *p, uint16_t v)
{
	*p++ = v >> 8;
	*p++ = v & 0xff;
	return p;
}

/* Sum of big-endian words, not inverted. */
static uint16_t
sum_of(const uint8_t *p, uint32_t len, uint32_t sum)
{
	for (; len > 1; len -= 2, p += 2)
		sum += p[0] * 256 + p[1];
	if (len > 0)
		sum += *p * 256;
	while (sum > 0xffff)
		sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

static uint8_t *
extension(uint8_t *p, uint8_t next, const struct packet *k, uint8_t fourth, uint8_t seed)
{
	unsigned int i, len = 8 + k->ip_options;

	for (i = 0; i < len; i++)
		p[i] = seed + i;
	p[0] = next;
	p[1] = len / 8 - 1;
	p[2] = 4;
	p[3] = fourth;
	return p + len;
}

/* Headers and a checksum over payload, which is whole, or only the sum of the pseudo header. */
static struct built
build(struct frame *out, const struct packet *k, const uint8_t *payload, uint32_t len, bool whole)
{
	uint8_t proto = k->udp ? IPPROTO_UDP : IPPROTO_TCP, *p = out->data, *ip, *l4, *frag;
	uint32_t l4_len = len + (k->udp ? 8 : 20 + k->tcp_options), sum, i;
	uint8_t order[4], nb_ext = 0;
	struct built at;

	for (i = 0; i < 12; i++)
		*p++ = 2 * (i + 1);
	for (i = 0; i < k->tags; i++)
		p = word(word(p, i + 1 < k->tags ? 0x88a8 : 0x8100), 100 + i);
	p = word(p, k->ipv6 ? 0x86dd : 0x0800);
	ip = p;
	if (k->hop)
		order[nb_ext++] = IPPROTO_HOPOPTS;
	if (k->routing)
		order[nb_ext++] = IPPROTO_ROUTING;
	if (k->dest)
		order[nb_ext++] = IPPROTO_DSTOPTS;
	order[nb_ext] = proto;
	if (k->ipv6) {
		p = word(word(p, 0x6012), 0x3456);
		p = word(p, l4_len + nb_ext * (8 + k->ip_options));
		*p++ = order[0];
		*p++ = 64;
		for (i = 0; i < 32; i++)
			*p++ = 0x20 + i;
		frag = p;
		for (i = 0; i < nb_ext; i++) {
			p = extension(p, order[i + 1], k,
				order[i] == IPPROTO_ROUTING ? k->segments_left : 9, 16 * i);
			if (order[i] != IPPROTO_DSTOPTS)
				frag = p;
		}
		sum = sum_of(ip + 8, 32, 0);
	} else {
		*p++ = 0x45 + k->ip_options / 4;
		*p++ = 0x02;
		p = word(p, 20 + k->ip_options + l4_len);
		p = word(word(p, k->id), k->frag);
		*p++ = 63;
		*p++ = proto;
		p = word(p, 0);
		for (i = 0; i < 8 + k->ip_options; i++)
			*p++ = i < 8 ? 10 + i : 1;
		word(ip + 10, ~sum_of(ip, p - ip, 0));
		sum = sum_of(ip + 12, 8, 0);
		frag = p;
	}
	/* a packet under way to another address than its last one is summed up with that */
	if (k->routing && k->segments_left > 0)
		sum += 0x1234;
	sum = sum_of(NULL, 0, sum + proto + l4_len);
	l4 = p;
	p = word(word(p, 7001), 7002);
	if (k->udp) {
		p = word(word(p, l4_len), sum);
	} else {
		p = word(word(p, k->seq >> 16), k->seq);
		p = word(word(p, 0xabcd), 0xef01);
		*p++ = (5 + k->tcp_options / 4) << 4;
		*p++ = k->flags;
		p = word(word(word(p, 5000), sum), 77);
		for (i = 0; i < k->tcp_options; i++)
			*p++ = 1;
	}
	memcpy(p, payload, len);
	out->len = p + len - out->data;
	at = (struct built){ip - out->data, frag - out->data, l4 - out->data, p - out->data};
	if (whole) {
		uint16_t v;

		v = word(l4 + (k->udp ? 6 : 16), 0) != NULL ? ~sum_of(l4, l4_len, sum) : 0;
		word(l4 + (k->udp ? 6 : 16), v == 0 && k->udp ? 0xffff : v);
	}
	return at;
}

/* The frame as its sender hands it over. */
static struct built
make_big(const struct packet *k, uint32_t len, uint16_t size)
{
	struct built at = build(&f, k, data, len, false);

	memset(&f.hdr, 0, sizeof(f.hdr));
	f.hdr.hdr = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = (k->udp		    ? VIRTIO_NET_HDR_GSO_UDP :
					    k->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 :
						      VIRTIO_NET_HDR_GSO_TCPV4) |
			(k->ecn ? VIRTIO_NET_HDR_GSO_ECN : 0),
		.gso_size = size,
		.hdr_len = len % 3 == 0 ? 0xffff : len % 2, /* a hint */
		.csum_start = at.l4,
		.csum_offset = k->udp ? 6 : 16,
	};
	return at;
}

static unsigned int
nb_segments(uint32_t len, uint32_t size)
{
	return len <= size ? 1 : (len + size - 1) / size;
}

static void
tcp_arrives(struct guest *to, const struct packet *k, uint32_t len, uint32_t size, bool partial)
{
	unsigned int n = nb_segments(len, size), i;

	for (i = 0; i < n; i++) {
		struct packet s = *k;
		uint32_t left = len - i * size;
		struct built at;

		s.id += i;
		s.seq += i * size;
		if (i + 1 < n)
			s.flags &= ~(FIN | PSH);
		if (i > 0 && k->ecn)
			s.flags &= ~CWR;
		at = build(&want, &s, data + i * size, left < size ? left : size, !partial);
		rx_wait(to, 0, &got);
		frames_equal(&got, &want);
		assert_int_equal(got.hdr.hdr.gso_type, VIRTIO_NET_HDR_GSO_NONE);
		assert_int_equal(got.hdr.hdr.gso_size, 0);
		assert_int_equal(got.hdr.hdr.flags, partial ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
		assert_int_equal(got.hdr.hdr.csum_start, partial ? at.l4 : 0);
		assert_int_equal(got.hdr.hdr.csum_offset, partial ? 16 : 0);
	}
}

/* Two guests on a wire; the second one's buffers are posted. */
struct wire {
	struct guest *a, *b;
};

static struct wire
wire_open(uint64_t ring, uint64_t takes, uint16_t mtu, unsigned int bufs, uint32_t buf_len)
{
	struct wire w;
	unsigned int i;

	for (i = 0; i < sizeof(data); i++)
		data[i] = i * 7 + i / 256;
	w.a = guest_open(&(struct guest_conf){.name = "a",
		.wiring = VFN_WIRING_WIRE,
		.features = ring | SENDER,
		.size = 16,
		.buf_len = 66000});
	w.b = guest_open(&(struct guest_conf){.name = "b",
		.wiring = VFN_WIRING_WIRE,
		.peer = "a",
		.mtu = mtu,
		.features = ring | takes | (mtu != 0 ? N(MTU) : 0),
		.buf_len = buf_len});
	rx_post(w.b, 0, bufs, buf_len, 1);
	return w;
}

/* ---- what arrives ---- */

static void
tcp_combinations(const struct shape *shape, bool partial)
{
	static const uint16_t sizes[] = {536, 777, 1448};
	struct wire w = wire_open(shape_features(shape), partial ? N(GUEST_CSUM) : 0, 0, 120, 2048);
	uint64_t segments = 0;
	unsigned int bits, s, l, sent = 0;

	for (bits = 0; bits < 3 * 2 * 2 * 2; bits++) {
		struct packet k = {
			.tags = bits / 8,
			.ipv6 = bits & 1,
			.ecn = bits & 2,
			.flags = ACK | CWR | (bits & 4 ? FIN | PSH : 0),
			.tcp_options = 12,
			.seq = 0xfffffa00 + bits, /* goes past its end */
			.id = 0xfffe,
			.frag = 0x4000,
		};

		for (s = 0; s < DIM(sizes); s++) {
			const uint32_t lens[] = {0, 1, sizes[s], sizes[s] + 1u, 2u * sizes[s],
				3u * sizes[s] - 1u, 10u * sizes[s] + 3u};

			for (l = 0; l < DIM(lens); l++) {
				unsigned int n = nb_segments(lens[l], sizes[s]);

				make_big(&k, lens[l], sizes[s]);
				/* the headers in pieces */
				assert_true(tx_post(w.a, 1, &f, (const uint32_t[]){HDR_LEN, 30, 3},
						    3) >= 0);
				mock_publish(&w.a->q[1].drv);
				queue_kick(w.a, 1);
				tcp_arrives(w.b, &k, lens[l], sizes[s], partial);
				tx_wait(w.a, 1, 1);
				segments += n;
				sent++;
				rx_post(w.b, 0, n, 2048, 1);
			}
		}
	}
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_SEGMENTED), sent);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_SEGMENTS), segments);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_PACKETS), sent);
	assert_int_equal(stat_of(w.b, 0, VFN_STAT_PACKETS), segments);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_DROPPED_OFFLOAD), 0);
}

static void
tcp_becomes_segments(const struct shape *shape)
{
	tcp_combinations(shape, false);
}

static void
tcp_becomes_segments_whose_checksum_is_left(const struct shape *shape)
{
	tcp_combinations(shape, true);
}

static void
each_kind_is_cut_for_whom_does_not_take_that_kind(void **state)
{
	static const struct {
		uint64_t takes;
		bool ipv6, ecn, partial;
	} t[] = {
		{N(GUEST_CSUM) | N(GUEST_TSO6), false, false, true},
		{N(GUEST_CSUM) | N(GUEST_TSO4) | N(GUEST_ECN), true, false, true},
		{N(GUEST_CSUM) | N(GUEST_TSO4), false, true, true},
		{N(GUEST_CSUM) | N(GUEST_TSO6) | N(GUEST_UFO), true, true, true},
	};
	unsigned int i;

	for (i = 0; i < DIM(t); i++) {
		struct wire w = wire_open(0, t[i].takes, 0, 20, 2048);
		struct packet k = {.ipv6 = t[i].ipv6, .ecn = t[i].ecn, .flags = ACK | CWR | PSH};

		make_big(&k, 5000, 1000);
		tx_send(w.a, 1, &f);
		tcp_arrives(w.b, &k, 5000, 1000, t[i].partial);
		guests_close(state);
	}
}

static void
options_and_extension_headers_are_repeated(const struct shape *shape)
{
	struct wire w = wire_open(shape_features(shape), 0, 0, 100, 2048);
	unsigned int i;

	for (i = 0; i < 32; i++) {
		struct packet k = {
			.ipv6 = i & 1,
			.tags = i % 3,
			.ip_options = i & 1 ? i / 2 * 8 % 40 : i * 4 % 44,
			.tcp_options = i * 4 % 44,
			.hop = i & 1 && i & 2,
			.routing = i & 1 && i & 4,
			.dest = i & 1 && i & 8,
			.segments_left = i / 16,
			.flags = ACK | FIN,
		};

		make_big(&k, 4001, 1300);
		tx_send(w.a, 1, &f);
		tcp_arrives(w.b, &k, 4001, 1300, false);
		tx_wait(w.a, 1, 1);
		rx_post(w.b, 0, 4, 2048, 1);
	}
}

static void
udp_becomes_fragments(const struct shape *shape)
{
	static const uint16_t sizes[] = {8, 1000, 1003, 1480};
	struct wire w = wire_open(shape_features(shape), 0, 0, 240, 2048);
	uint32_t last_ident = 0;
	unsigned int i, n, s;

	for (i = 0; i < 8 * DIM(sizes); i++) {
		static struct frame whole;
		struct packet k = {.udp = true,
			.ipv6 = i & 1,
			.tags = i % 3,
			.id = 77,
			.hop = i & 2,
			.routing = i & 4,
			.dest = i & 2,
			.frag = 0x4000};
		uint32_t size = sizes[i / 8] & ~7u, len = 5 * size + 3, left, ident = 0, more;
		struct built at;

		make_big(&k, len, sizes[i / 8]);
		at = build(&whole, &k, data, len, true);
		tx_send(w.a, 1, &f);
		left = whole.len - at.fragmentable;
		n = (left + size - 1) / size;
		for (s = 0; s < n; s++, left -= more) {
			uint32_t head = at.fragmentable, next = at.ip + 6;

			more = left < size ? left : size;
			rx_wait(w.b, 0, &got);
			assert_int_equal(got.hdr.hdr.flags, 0);
			memcpy(want.data, whole.data, head);
			if (k.ipv6) {
				/* the last header before it names it, and it the next one */
				if (head > at.ip + 40)
					next = head - 8;
				memset(want.data + head, 0, 8);
				want.data[head] = want.data[next];
				want.data[next] = IPPROTO_FRAGMENT;
				word(want.data + head + 2, s * size | (s + 1 < n));
				if (s == 0)
					memcpy(&ident, got.data + head + 4, 4);
				memcpy(want.data + head + 4, &ident, 4);
				head += 8;
				word(want.data + at.ip + 4, head - at.ip - 40 + more);
			} else {
				word(want.data + at.ip + 2, head - at.ip + more);
				word(want.data + at.ip + 6,
					s * size / 8 | (s + 1 < n ? 0x2000 : 0));
				word(want.data + at.ip + 10, 0);
				word(want.data + at.ip + 10,
					~sum_of(want.data + at.ip, head - at.ip, 0));
			}
			memcpy(want.data + head, whole.data + at.fragmentable + s * size, more);
			want.len = head + more;
			frames_equal(&got, &want);
		}
		if (k.ipv6)
			assert_int_not_equal(ident, last_ident);
		last_ident = ident;
		tx_wait(w.a, 1, 1);
		rx_post(w.b, 0, n, 2048, 1);
	}
}

static void
udp_that_needs_no_fragments_is_whole(void **state)
{
	struct wire w = wire_open(0, 0, 0, 10, 2048);
	struct packet k = {.udp = true, .frag = 0x4000, .id = 1};

	(void)state;
	make_big(&k, 900, 1000);
	tx_send(w.a, 1, &f);
	rx_wait(w.b, 0, &got);
	build(&want, &k, data, 900, true);
	frames_equal(&got, &want);
	/* datagrams that needed no number get one when they become fragments */
	k.id = 0;
	make_big(&k, 1900, 1000);
	tx_send(w.a, 1, &f);
	rx_wait(w.b, 0, &got);
	assert_true(got.data[18] != 0 || got.data[19] != 0);
	rx_wait(w.b, 0, &want);
	assert_memory_equal(got.data + 18, want.data + 18, 2);
}

static void
largest_frame_arrives(const struct shape *shape)
{
	struct wire w = wire_open(shape_features(shape), 0, 0, 130, 2048);
	struct packet k = {.flags = ACK | PSH, .tags = 1};

	/* an IP packet of 65,535 bytes, tagged */
	make_big(&k, 65535 - 40, 536);
	tx_send(w.a, 1, &f);
	tcp_arrives(w.b, &k, 65535 - 40, 536, false);
	tx_wait(w.a, 1, 1);
}

/* ---- all of it or nothing ---- */

static void
nothing_arrives_before_there_is_room_for_all(const struct shape *shape)
{
	uint32_t buf = shape->mergeable ? 400 : 1600;
	unsigned int per = shape->mergeable ? 3 : 1;
	struct wire w = wire_open(shape_features(shape), 0, 0, 10 * per - 1, buf);
	struct packet k = {.flags = ACK};

	make_big(&k, 10000, 1000);
	tx_send(w.a, 1, &f);
	assert_false(rx_try(w.b, 0, &got, 30));
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_PACKETS), 0);
	rx_post(w.b, 0, 1, buf, 1);
	tcp_arrives(w.b, &k, 10000, 1000, false);
	tx_wait(w.a, 1, 1);
	assert_false(rx_try(w.b, 0, &got, 30));
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_SEGMENTED), 1);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_SEGMENTS), 10);
}

static void
what_never_fits_is_dropped_at_once(const struct shape *shape)
{
	struct packet k = {.flags = ACK};
	uint64_t begin;
	struct wire w;

	/* a segment that is larger than the receiver's MTU, by one byte, and one that is not */
	w = wire_open(shape_features(shape), 0, 1000, 40, 2048);
	make_big(&k, 5000, 1000 - 40 + 4 + 1);
	tx_send(w.a, 1, &f);
	tx_wait(w.a, 1, 1);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_DROPPED_SIZE), 1);
	make_big(&k, 5000, 1000 - 40 + 4);
	tx_send(w.a, 1, &f);
	tcp_arrives(w.b, &k, 5000, 1000 - 40 + 4, false);
	guests_close(NULL);
	/* more segments than the ring has buffers: what comes behind does not wait */
	w = wire_open(shape_features(shape), 0, 0, 256, 256);
	make_big(&k, 60000, 240);
	begin = now_ms();
	tx_send(w.a, 1, &f);
	tx_wait(w.a, 1, 1);
	assert_true(now_ms() - begin < 900);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_DROPPED_SIZE), 1);
	make_big(&k, 500, 150);
	tx_send(w.a, 1, &f);
	tcp_arrives(w.b, &k, 500, 150, false);
}

/* ---- what is not cut up ---- */

static void
set_byte(uint32_t at, uint8_t v)
{
	f.data[at] = v;
}

static void
headers_that_cannot_be_are_counted(const struct shape *shape)
{
	struct wire w = wire_open(shape_features(shape), 0, 0, 100, 2048);
	struct packet v4 = {.flags = ACK, .frag = 0x4000}, v6 = {.ipv6 = true, .flags = ACK};
	struct packet ext = {.ipv6 = true, .dest = true}, udp = {.udp = true};
	struct packet late = {.ipv6 = true, .dest = true, .hop = true, .ip_options = 240};
	const struct {
		const char *name;
		const struct packet *k;
		uint32_t at; /* a byte to change */
		uint8_t to;
		uint16_t size; /* 0: 1000 */
		uint16_t csum_start, csum_offset;
		uint8_t type;
		uint32_t len; /* cut off to this */
	} bad[] = {
		{"not IP", &v4, 12, 0x99, 0, 0, 0, 0, 0},
		{"IPv6 as TCPV4", &v6, 12, 0x86, 0, 0, 0, VIRTIO_NET_HDR_GSO_TCPV4, 0},
		{"IPv4 as TCPV6", &v4, 12, 0x08, 0, 0, 0, VIRTIO_NET_HDR_GSO_TCPV6, 0},
		{"version 5", &v4, 14, 0x55, 0, 0, 0, 0, 0},
		{"version 4 in IPv6", &v6, 14, 0x45, 0, 0, 0, 0, 0},
		{"IHL 4", &v4, 14, 0x44, 0, 0, 0, 0, 0},
		{"IHL 15", &v4, 14, 0x4f, 0, 0, 0, 0, 0},
		{"a fragment", &v4, 20, 0x20, 0, 0, 0, 0, 0},
		{"a late fragment", &v4, 21, 0x01, 0, 0, 0, 0, 0},
		{"UDP as TCP", &v4, 23, 17, 0, 0, 0, 0, 0},
		{"TCP as UDP", &udp, 23, 6, 0, 0, 0, 0, 0},
		{"TCP header of 16", &v4, 46, 0x40, 0, 0, 0, 0, 0},
		{"TCP header past the end", &v4, 46, 0xf0, 0, 0, 0, 0, 14 + 20 + 59},
		{"no TCP header", &v4, 0, 2, 0, 20, 8, 0, 14 + 20 + 19},
		{"no UDP header", &udp, 0, 2, 0, 20, 8, 0, 14 + 20 + 7},
		{"no IPv4 header", &v4, 0, 2, 0, 20, 8, 0, 14 + 19},
		{"no IPv6 header", &v6, 0, 2, 0, 20, 8, 0, 14 + 39},
		{"nothing behind Ethernet", &v4, 0, 2, 0, 4, 8, 0, 14},
		{"half a tag", &v4, 12, 0x81, 0, 4, 8, 0, 15},
		{"checksum elsewhere", &v4, 0, 2, 0, 38, 16, 0, 0},
		{"other checksum", &v4, 0, 2, 0, 34, 6, 0, 0},
		{"extension past the end", &ext, 14 + 41, 255, 0, 0, 0, 0, 0},
		{"IPv6 fragment", &ext, 14 + 6, IPPROTO_FRAGMENT, 0, 0, 0, 0, 0},
		{"encrypted", &v6, 14 + 6, IPPROTO_ESP, 0, 0, 0, 0, 0},
		{"headers without end", &late, 0, 2, 0, 0, 0, 0, 0},
		{"too many segments", &v4, 0, 2, 1, 0, 0, 0, 0},
		{"fragments of less than 8", &udp, 0, 2, 7, 0, 0, 0, 0},
	};
	unsigned int i;

	for (i = 0; i < DIM(bad); i++) {
		make_big(bad[i].k, 3000, bad[i].size != 0 ? bad[i].size : 1000);
		set_byte(bad[i].at, bad[i].to);
		/* 0x8100 takes the place of the type */
		if (bad[i].at == 12 && bad[i].to == 0x81)
			set_byte(13, 0);
		if (bad[i].len != 0)
			f.len = bad[i].len;
		if (bad[i].type != 0)
			f.hdr.hdr.gso_type = bad[i].type;
		if (bad[i].csum_start != 0) {
			f.hdr.hdr.csum_start = bad[i].csum_start;
			f.hdr.hdr.csum_offset = bad[i].csum_offset;
		}
		tx_send(w.a, 1, &f);
		tx_wait(w.a, 1, 1);
		if (stat_of(w.a, 1, VFN_STAT_DROPPED_OFFLOAD) != i + 1)
			fail_msg("%s: not counted", bad[i].name);
	}
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_SEGMENTED), 0);
	make_big(&v4, 3000, 1000);
	tx_send(w.a, 1, &f);
	tcp_arrives(w.b, &v4, 3000, 1000, false);
}

static void
work_for_one_frame_is_bounded(void **state)
{
	struct wire w = wire_open(0, 0, 0, 256, 2048);
	struct packet k = {.flags = ACK};

	(void)state;
	make_big(&k, 65000, 1);
	tx_send(w.a, 1, &f);
	tx_wait(w.a, 1, 1);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_DROPPED_OFFLOAD), 1);
	/* 256 segments are few enough, with every buffer that the ring has; 257 are not */
	make_big(&k, 257, 1);
	tx_send(w.a, 1, &f);
	tx_wait(w.a, 1, 1);
	assert_int_equal(stat_of(w.a, 1, VFN_STAT_DROPPED_OFFLOAD), 2);
	make_big(&k, 256, 1);
	tx_send(w.a, 1, &f);
	tcp_arrives(w.b, &k, 256, 1, false);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		PLAIN(each_kind_is_cut_for_whom_does_not_take_that_kind),
		PLAIN(udp_that_needs_no_fragments_is_whole),
		PLAIN(work_for_one_frame_is_bounded),
	};
	static const struct shaped_test shaped[] = {
		SHAPED(tcp_becomes_segments),
		SHAPED(tcp_becomes_segments_whose_checksum_is_left),
		SHAPED(options_and_extension_headers_are_repeated),
		SHAPED(udp_becomes_fragments),
		SHAPED(largest_frame_arrives),
		SHAPED(nothing_arrives_before_there_is_room_for_all),
		SHAPED(what_never_fits_is_dropped_at_once),
		SHAPED(headers_that_cannot_be_are_counted),
	};

	if (fn_eal_init(NULL) < 0)
		return 1;
	return run_list("segment", tests, DIM(tests), shaped, DIM(shaped));
}
