/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * vfn-rtt: round trips of single packets through port 0, whose other end sends back what it gets.
 * The front-end of devtools/bench_latency.py. All on the main lcore.
 *
 * One packet is under way at any time, and numbered, so that none is taken for another. A window
 * is a line of JSON: nanoseconds by rank of all its round trips, which are kept and sorted.
 */

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_common.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_mbuf.h>
#include <rte_pause.h>

#define NB_MBUFS 4095
#define NB_DESC	 256
#define MAX_TRIP 8000000u

struct settings {
	unsigned int size; /* without FCS */
	unsigned int windows;
	unsigned int window_ms;
	unsigned int gap_us; /* between a packet's return and the next one */
};

static struct settings set = {.size = 60, .windows = 10, .window_ms = 500};
static uint32_t *trip; /* cycles */

static const char usage[] =
	"Usage: vfn-rtt [EAL options] -- [options]\n"
	"Time round trips of single packets through the first port, to JSON lines.\n"
	"\n"
	"  --size N        bytes of a packet without FCS, 60 to 1514 (default 60)\n"
	"  --windows N     lines (default 10)\n"
	"  --window-ms N   how long each is (default 500)\n"
	"  --gap-us N      pause between two packets, 0 to 100000 (default 0)\n";

static unsigned int
number(const char *option, const char *text, unsigned int min, unsigned int max)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (text[0] < '0' || text[0] > '9' || *end != '\0' || v < min || v > max) {
		fprintf(stderr, "vfn-rtt: --%s: '%s' is not a number from %u to %u\n", option, text,
			min, max);
		exit(2);
	}
	return v;
}

static void
parse(int argc, char **argv)
{
	static const struct option options[] = {
		{"size", required_argument, NULL, 's'},
		{"windows", required_argument, NULL, 'n'},
		{"window-ms", required_argument, NULL, 'w'},
		{"gap-us", required_argument, NULL, 'g'},
		{NULL, 0, NULL, 0},
	};
	int opt;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (opt == 's') {
			set.size = number("size", optarg, 60, 1514);
		} else if (opt == 'n') {
			set.windows = number("windows", optarg, 1, 100000);
		} else if (opt == 'w') {
			set.window_ms = number("window-ms", optarg, 1, 10000);
		} else if (opt == 'g') {
			set.gap_us = number("gap-us", optarg, 0, 100000);
		} else {
			fputs(usage, stderr);
			exit(2);
		}
	}
}

static struct rte_mempool *
start_port(uint16_t port)
{
	static const struct rte_eth_conf conf;
	struct rte_mempool *pool = rte_pktmbuf_pool_create(
		"packets", NB_MBUFS, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	struct rte_eth_link link = {0};

	if (pool == NULL || rte_eth_dev_configure(port, 1, 1, &conf) < 0 ||
		rte_eth_rx_queue_setup(port, 0, NB_DESC, SOCKET_ID_ANY, NULL, pool) < 0 ||
		rte_eth_tx_queue_setup(port, 0, NB_DESC, SOCKET_ID_ANY, NULL) < 0 ||
		rte_eth_dev_start(port) < 0 || rte_eth_link_get(port, &link) < 0)
		return NULL;
	return pool;
}

/* Cycles until packet seq was back, 0 if it is not within a second. */
static uint64_t
round_trip(uint16_t port, struct rte_mempool *pool, uint64_t seq)
{
	static const struct rte_ether_addr to = {{2, 0, 0, 0, 0, 1}}, from = {{2, 0, 0, 0, 0, 2}};
	struct rte_mbuf *m = rte_pktmbuf_alloc(pool);
	struct rte_ether_hdr *head;
	uint64_t start, now;

	if (m == NULL)
		return 0;
	head = (struct rte_ether_hdr *)rte_pktmbuf_append(m, set.size);
	memset(head, 0, set.size);
	head->dst_addr = to;
	head->src_addr = from;
	head->ether_type = rte_cpu_to_be_16(0x88b5); /* for experiments */
	memcpy(head + 1, &seq, sizeof(seq));
	start = now = rte_rdtsc_precise();
	if (rte_eth_tx_burst(port, 0, &m, 1) != 1) {
		rte_pktmbuf_free(m);
		return 0;
	}
	while (now - start < rte_get_tsc_hz()) {
		bool back;

		if (rte_eth_rx_burst(port, 0, &m, 1) == 0) {
			now = rte_rdtsc();
			continue;
		}
		now = rte_rdtsc_precise();
		back = m->pkt_len == set.size &&
			memcmp(rte_pktmbuf_mtod_offset(m, const void *, sizeof(*head)), &seq,
				sizeof(seq)) == 0;
		rte_pktmbuf_free(m);
		if (back)
			return now - start;
	}
	return 0;
}

static void
pause_us(unsigned int us)
{
	uint64_t start = rte_rdtsc(), cycles = rte_get_tsc_hz() / 1000000 * us;

	while (rte_rdtsc() - start < cycles)
		rte_pause();
}

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static void
window(uint16_t port, struct rte_mempool *pool)
{
	static const struct {
		const char *name;
		double part;
	} ranks[] = {{"min", 0}, {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999},
		{"max", 1}};
	static uint64_t seq;
	double per_ns = rte_get_tsc_hz() / 1e9, sum = 0;
	uint64_t end = rte_rdtsc() + rte_get_tsc_hz() / 1000 * set.window_ms;
	uint32_t n = 0, lost = 0, i;

	while (rte_rdtsc() < end && n < MAX_TRIP) {
		uint64_t cycles = round_trip(port, pool, ++seq);

		if (cycles == 0) {
			lost++;
		} else {
			trip[n++] = cycles;
			sum += cycles;
		}
		if (set.gap_us > 0)
			pause_us(set.gap_us);
	}
	qsort(trip, n, sizeof(*trip), compare);
	printf("{\"trips\": %u, \"lost\": %u", n, lost);
	for (i = 0; n > 0 && i < RTE_DIM(ranks); i++)
		printf(", \"%s\": %.0f", ranks[i].name,
			trip[(uint32_t)(ranks[i].part * (n - 1))] / per_ns);
	printf(", \"mean\": %.0f}\n", n > 0 ? sum / n / per_ns : 0);
	fflush(stdout);
}

int
main(int argc, char **argv)
{
	struct rte_mempool *pool;
	uint16_t port;
	unsigned int i;
	int ret = rte_eal_init(argc, argv);

	if (ret < 0)
		return 1;
	parse(argc - ret, argv + ret);
	port = rte_eth_find_next(0);
	trip = malloc(MAX_TRIP * sizeof(*trip));
	pool = port < RTE_MAX_ETHPORTS && trip != NULL ? start_port(port) : NULL;
	if (pool == NULL) {
		fprintf(stderr, "vfn-rtt: no port, or it does not start\n");
		return 1;
	}
	/* the first ones find nothing in its place */
	for (i = 0; i < 20 || (i < 2000 && set.gap_us == 0); i++)
		if (round_trip(port, pool, UINT64_MAX - i) == 0 && i >= 3) {
			fprintf(stderr, "vfn-rtt: packets do not come back\n");
			return 1;
		}
	for (i = 0; i < set.windows; i++)
		window(port, pool);
	rte_eth_dev_stop(port);
	rte_eth_dev_close(port);
	rte_eal_cleanup();
	return 0;
}
