/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * vfn-rtt: round trips of single packets through ports whose other ends send back what they get.
 * The front-end of devtools/bench_latency.py. All on the main lcore.
 *
 * One packet is under way at any time, and numbered, so that none is taken for another. A line on
 * standard input, "PORT MS GAP_US", asks for a window, which is answered by a line of JSON:
 * nanoseconds by rank of all its round trips, which are kept and sorted.
 */

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
#define MAX_TRIP 8000000u /* of a window */

static unsigned int size = 60; /* of a packet without FCS */
static uint32_t *trip;	       /* cycles */

static bool
start_port(uint16_t port, struct rte_mempool *pool)
{
	static const struct rte_eth_conf conf;

	return rte_eth_dev_configure(port, 1, 1, &conf) == 0 &&
		rte_eth_rx_queue_setup(port, 0, NB_DESC, SOCKET_ID_ANY, NULL, pool) == 0 &&
		rte_eth_tx_queue_setup(port, 0, NB_DESC, SOCKET_ID_ANY, NULL) == 0 &&
		rte_eth_dev_start(port) == 0;
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
	head = (struct rte_ether_hdr *)rte_pktmbuf_append(m, size);
	memset(head, 0, size);
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
		back = m->pkt_len == size &&
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
window(uint16_t port, struct rte_mempool *pool, unsigned int ms, unsigned int gap_us)
{
	static const struct {
		const char *name;
		double part;
	} ranks[] = {{"min", 0}, {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999},
		{"max", 1}};
	static uint64_t seq;
	double per_ns = rte_get_tsc_hz() / 1e9, sum = 0;
	uint64_t end = rte_rdtsc() + rte_get_tsc_hz() / 1000 * ms;
	uint32_t n = 0, lost = 0, i;

	do {
		uint64_t cycles = round_trip(port, pool, ++seq);

		if (cycles == 0) {
			lost++;
		} else {
			trip[n++] = cycles;
			sum += cycles;
		}
		pause_us(gap_us);
	} while (rte_rdtsc() < end && n < MAX_TRIP);
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
	unsigned int port, nb_ports, ms, gap_us;
	struct rte_mempool *pool;
	char line[64];
	int ret = rte_eal_init(argc, argv);

	if (ret < 0)
		return 1;
	if (argc > ret + 1)
		size = strtoul(argv[ret + 1], NULL, 10);
	if (argc > ret + 2 || size < 60 || size > 1514) {
		fputs("Usage: vfn-rtt EAL-OPTIONS -- [SIZE]\n"
		      "Bytes of a packet without FCS, 60 (default) to 1514; standard input: "
		      "\"PORT MS GAP_US\"\n",
			stderr);
		return 2;
	}
	pool = rte_pktmbuf_pool_create(
		"packets", NB_MBUFS, 0, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	trip = malloc(MAX_TRIP * sizeof(*trip));
	if (pool == NULL || trip == NULL)
		return 1;
	nb_ports = rte_eth_dev_count_avail();
	for (port = 0; port < nb_ports; port++)
		if (!start_port(port, pool)) {
			fprintf(stderr, "vfn-rtt: port %u does not start\n", port);
			return 1;
		}
	printf("vfn-rtt: ready\n");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL &&
		sscanf(line, "%u %u %u", &port, &ms, &gap_us) == 3 && port < nb_ports)
		window(port, pool, ms, gap_us);
	for (port = 0; port < nb_ports; port++) {
		rte_eth_dev_stop(port);
		rte_eth_dev_close(port);
	}
	return rte_eal_cleanup() < 0;
}
