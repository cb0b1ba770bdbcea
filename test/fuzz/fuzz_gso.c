/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Segmentation of whatever a guest hands over: a header, and the bytes of a frame. Nothing outside
 * of the copy is touched, every byte of the payload goes out once and in its place, lengths and
 * checksums fit. One thread.
 *
 * Built with libFuzzer it is a target of devtools/fuzz.sh; else it runs its seeds, the files of a
 * directory, and as many mutations as it is told.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <class/net/gso.h>

#define ROOM	  8u
#define MAX_FRAME (65535u + 18)

#define CHECK(what) \
	do { \
		if (!(what)) { \
			fprintf(stderr, "gso: \"%s\" does not hold\n", #what); \
			abort(); \
		} \
	} while (0)

/* Before the frame. */
struct input {
	struct virtio_net_hdr hdr;
	uint8_t partial;
	uint8_t unused;
	uint16_t longer; /* bytes of the frame behind those of the input */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint16_t
word(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static uint32_t
sum(const uint8_t *p, uint32_t len, uint32_t from)
{
	uint64_t s = from;
	uint32_t i;

	for (i = 0; i < len; i++)
		s += i % 2 ? p[i] : p[i] << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return s;
}

static void
segment_is_right(const struct vfn_gso *g, uint32_t i, const uint8_t *seg, bool partial)
{
	uint32_t len = vfn_gso_len(g, i), l4_len = len - g->l4;
	const uint8_t *ip = seg + g->ip;

	if (g->ipv6) {
		CHECK(word(ip + 4) == len - g->ip - 40);
	} else {
		CHECK(word(ip + 2) == len - g->ip);
		CHECK(sum(ip, (ip[0] & 15) * 4, 0) == 0xffff);
	}
	/* The whole of it with its pseudo header; routed packets have another address there. */
	if (g->proto == 6 && !partial && (!g->ipv6 || ip[6] == 6)) {
		uint32_t pseudo = 6 + l4_len;

		pseudo = g->ipv6 ? sum(ip + 8, 32, pseudo) : sum(ip + 12, 8, pseudo);
		CHECK(sum(seg + g->l4, l4_len, pseudo) == 0xffff);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t len, heads, i, done = 0;
	struct virtio_net_hdr hdr;
	uint8_t *room, *frame, *head;
	struct vfn_gso g;
	struct input in;

	if (size < sizeof(in))
		return 0;
	memcpy(&in, data, sizeof(in));
	data += sizeof(in);
	size -= sizeof(in);
	len = size + in.longer;
	if (len > MAX_FRAME)
		return 0;
	/* Both of their exact size: the sanitizer sees what is behind the end. */
	heads = len < VFN_GSO_HEADS ? len : VFN_GSO_HEADS;
	room = malloc(ROOM + len);
	head = malloc(heads + !heads);
	CHECK(room != NULL && head != NULL);
	frame = room + ROOM;
	memset(frame, 0x5a, len);
	memcpy(frame, data, size);
	memcpy(head, frame, heads);
	if (!vfn_gso_start(&g, &in.hdr, head, heads, len, 0x01020304)) {
		free(head);
		free(room);
		return 0;
	}
	free(head);
	g.frame = frame;
	CHECK(g.nb >= 1 && g.nb <= VFN_GSO_MAX);
	CHECK(g.body <= len && g.body <= heads && g.l4 < len);
	for (i = 0; i < g.nb; i++) {
		uint32_t n = vfn_gso_len(&g, i), piece = n - g.head_len;
		uint8_t *seg = vfn_gso_make(&g, i, in.partial, &hdr);
		uint32_t k;

		CHECK(n >= g.head_len && n <= vfn_gso_len(&g, 0));
		CHECK(piece > 0 || g.nb == 1);
		CHECK(seg >= room && seg + n <= frame + len);
		CHECK(hdr.gso_type == VIRTIO_NET_HDR_GSO_NONE);
		CHECK(!hdr.flags || (uint32_t)hdr.csum_start + hdr.csum_offset + 2 <= n);
		for (k = 0; k < piece; k++) {
			uint32_t at = g.body + done + k;

			/* but for the checksum of a datagram, which was in the payload */
			if (g.proto != 17 || at < g.l4 + 6 || at >= g.l4 + 8)
				CHECK(seg[g.head_len + k] == (at < size ? data[at] : 0x5a));
		}
		done += piece;
		segment_is_right(&g, i, seg, in.partial);
	}
	CHECK(done == len - g.body);
	free(room);
	return 0;
}

#ifndef FUZZ_LIBFUZZER

#include <dirent.h>

#define NB_SEEDS 12
#define SEED_LEN 400

static uint8_t seed[NB_SEEDS][SEED_LEN];

/* Frames that can be cut up: each kind, plain, tagged, with options. */
static void
make_seeds(void)
{
	unsigned int i;

	for (i = 0; i < NB_SEEDS; i++) {
		unsigned int tags = i / 6, kind = i % 6, ip = 14 + 4 * tags, l4, k;
		bool ipv6 = kind % 2, udp = kind > 3, more = kind == 2 || kind == 3;
		struct input in = {.partial = i & 1, .longer = 1500 * (i % 5)};
		uint8_t *f = seed[i] + sizeof(in);

		for (k = 0; k < SEED_LEN; k++)
			seed[i][k] = k;
		for (k = 0; k < tags; k++)
			memcpy(f + 12 + 4 * k, "\x81\x00", 2);
		memcpy(f + ip - 2, ipv6 ? "\x86\xdd" : "\x08\x00", 2);
		f[ip] = ipv6 ? 0x60 : more ? 0x4a : 0x45;
		f[ip + 6] = ipv6 ? (more ? 0 : udp ? 17 : 6) : 0x40;
		if (!ipv6)
			memcpy(f + ip + 7, udp ? "\x00\x40\x11" : "\x00\x40\x06", 3);
		l4 = ip + (ipv6 ? more ? 72 : 40 : more ? 40 : 20);
		if (ipv6 && more) {
			memcpy(f + ip + 40, "\x3c\x00", 2); /* hop by hop, destination, routing */
			memcpy(f + ip + 48, "\x2b\x00", 2);
			memcpy(f + ip + 56, "\x06\x01\x00\x01", 4);
		}
		if (!udp)
			f[l4 + 12] = more ? 0x80 : 0x50;
		in.hdr = (struct virtio_net_hdr){
			.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
			.gso_type = udp ? VIRTIO_NET_HDR_GSO_UDP :
				ipv6	? VIRTIO_NET_HDR_GSO_TCPV6 :
					  VIRTIO_NET_HDR_GSO_TCPV4,
			.gso_size = 64 + 100 * (i % 4),
			.csum_start = l4,
			.csum_offset = udp ? 6 : 16,
		};
		memcpy(seed[i], &in, sizeof(in));
	}
}

static uint32_t
next(uint64_t *state)
{
	*state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return *state >> 33;
}

static void
run_file(const char *path)
{
	static uint8_t data[2 * 65536];
	FILE *in = fopen(path, "rb");

	if (in == NULL) {
		perror(path);
		exit(1);
	}
	LLVMFuzzerTestOneInput(data, fread(data, 1, sizeof(data), in));
	fclose(in);
}

/* What is in a directory; a file is one input. Returns how many. */
static unsigned int
run_path(const char *path)
{
	struct dirent **list;
	int i, n = scandir(path, &list, NULL, alphasort);
	unsigned int done = 0;
	char name[4096];

	if (n < 0) {
		run_file(path);
		return 1;
	}
	for (i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, list[i]->d_name);
		if (list[i]->d_name[0] != '.') {
			run_file(name);
			done++;
		}
		free(list[i]);
	}
	free(list);
	return done;
}

static void
write_seeds(const char *dir)
{
	char path[4096];
	unsigned int i;
	FILE *out;

	for (i = 0; i < NB_SEEDS; i++) {
		snprintf(path, sizeof(path), "%s/%u", dir, i);
		out = fopen(path, "wb");
		if (out == NULL || fwrite(seed[i], 1, SEED_LEN, out) != SEED_LEN ||
			fclose(out) != 0) {
			perror(path);
			exit(1);
		}
	}
}

/* replay_gso --write-seeds DIRECTORY | [--executions N] [FILE | DIRECTORY]... */
int
main(int argc, char **argv)
{
	unsigned int executions = 20000, given = 0, i, k;
	uint8_t now[SEED_LEN];
	uint64_t state = 1;
	int a;

	make_seeds();
	for (a = 1; a < argc; a++) {
		if (strcmp(argv[a], "--write-seeds") == 0 && a + 1 < argc) {
			write_seeds(argv[a + 1]);
			return 0;
		}
		if (strcmp(argv[a], "--executions") == 0 && a + 1 < argc)
			executions = atoi(argv[++a]);
		else
			given += run_path(argv[a]);
	}
	for (i = 0; i < NB_SEEDS; i++)
		LLVMFuzzerTestOneInput(seed[i], SEED_LEN);
	for (i = 0; i < executions; i++) {
		uint32_t len = next(&state) % 4 ? SEED_LEN : next(&state) % SEED_LEN;

		memcpy(now, seed[next(&state) % NB_SEEDS], SEED_LEN);
		/* mostly where headers are */
		for (k = next(&state) % 4; k < 4; k++)
			now[next(&state) % (next(&state) % 4 ? 110 : SEED_LEN)] ^=
				next(&state) % 2 ? next(&state) : 1u << next(&state) % 8;
		LLVMFuzzerTestOneInput(now, len);
	}
	printf("gso: %u inputs given, %u seeds, %u mutations\n", given, NB_SEEDS, executions);
	return 0;
}

#endif /* FUZZ_LIBFUZZER */
