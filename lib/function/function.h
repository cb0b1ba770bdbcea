/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The virtio function's parts, private to lib/function.
 *
 * Execution contexts:
 *  - control: any thread that calls the link, with vfn_control_lock held;
 *  - poller: one thread (or DPDK service) per struct vfn_poller, never blocked by control.
 * A field belongs to one of the two. Control changes what belongs to pollers only between
 * vfn_port_stop() and vfn_port_start(), when no poller has the function's work.
 */

#ifndef VFN_FUNCTION_H
#define VFN_FUNCTION_H

#include <inttypes.h>
#include <pthread.h>
#include <sys/queue.h>

#include <linux/virtio_config.h>
#include <linux/virtio_net.h>

#include <rte_log.h>
#include <vringh.h>

#include "vfn_link.h"
#include "vfn_regs.h"

extern int vfn_logtype;
#define VFN_LOG(level, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_logtype, "vfn: " fmt "\n", ##__VA_ARGS__)
#define FN_LOG(level, fn, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_logtype, "%s: " fmt "\n", (fn)->params.name, ##__VA_ARGS__)

#define FEATURE(bit) (UINT64_C(1) << (bit))

#define NO_VECTOR 0xffff

struct vfn_function;
struct vfn_poller;
struct vfn_rate;
struct vfn_ethdev;

/*
 * The service that a queue has had from its poller, in TSC: see poller_loop.c. It outlives what
 * control changes.
 */
struct vfn_account {
	uint64_t served;
	uint64_t rests_until; /* 0: it does not */
	bool in_vain;	      /* its last turn moved nothing */
};

struct vfn_queue {
	/* Poller, or control while stopped. */
	struct vringh vr;
	struct vringh_inflight inflight;
	uint64_t stats[VFN_STAT_MAX];
	int call_fd; /* eventfd of the queue's vector, -1: none */
	bool broken_told;
	bool deaf; /* nobody wakes its poller for it */
	struct vfn_account account;

	/* Control. */
	struct vfn_function *fn;
	uint16_t index;
	uint16_t size;
	uint16_t vector;
	bool enabled;
	bool suspended;
	bool moving;   /* was reset while suspended: until it is enabled, senders wait */
	uint8_t error; /* enum vringh_error of the last enable */
	uint64_t area[3];
	uint64_t log;		   /* what the dirty log calls the device area */
	uint64_t inflight_addr;	   /* of the in-flight region in VFN_DMA_OWN */
	uint32_t inflight_len;	   /* 0: none */
	uint16_t *resubmit;	   /* room for what was in flight */
	struct vringh_state state; /* where to start, until enabled */
	int doorbell_fd;
	struct vfn_job *job; /* of the driver, NULL: none */

	uint64_t generated; /* frames for this queue; poller, see net_gen.c */
};

/* A driver's list of addresses to receive. */
#define VFN_MAC_TABLE 256
struct vfn_mac_table {
	bool all; /* there were more than fit: nothing of their kind is filtered */
	uint16_t n;
	uint8_t addr[VFN_MAC_TABLE][6];
};

/* What the driver wants to receive, by control queue commands. */
#define VFN_NB_VLANS 4096
struct vfn_filter {
	uint8_t mode[VIRTIO_NET_CTRL_RX_NOBCAST + 1]; /* by command */
	struct vfn_mac_table unicast;
	struct vfn_mac_table multicast;
	uint8_t vlan[VFN_NB_VLANS / 8];
};

/*
 * One thing that a poller looks after: a transmit queue and where its frames go, a receive queue
 * for which frames are made (it is tx then), or the job that the driver has given to a queue.
 */
struct vfn_work {
	struct vfn_function *fn; /* whose frames (or commands) these are */
	struct vfn_job *job;	 /* of queue tx, whichever kind that is; NULL: frames */
	struct vfn_queue *tx;
	struct vfn_queue *rx;  /* NULL: frames are discarded */
	bool filter;	       /* rx's function does not want all of them */
	bool short_hdr;	       /* in one of the two queues headers are not VFN_NET_HDR_SIZE long */
	bool held;	       /* by the rate limit, though there are frames */
	struct vfn_rate *rate; /* NULL: none */
	struct vfn_poller *poller;
	/* Move a burst; returns what was taken from the queue. */
	unsigned int (*run)(struct vfn_work *work);
	uint64_t stalled_since; /* TSC when rx ran out of buffers, 0: it did not */
	uint64_t moved_at;	/* the poller's iteration in which anything was moved last */
	uint32_t fewer;		/* chains than a burst are fetched: it would cost too much */
};

struct vfn_function {
	struct vfn_link link;
	TAILQ_ENTRY(vfn_function) next;
	struct vfn_function_params params;

	/* Registers. */
	uint64_t device_features;
	uint64_t driver_features;
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t config_vector;
	uint16_t queue_select;
	uint16_t curr_pairs;
	uint8_t status;
	uint8_t isr;
	uint8_t config_generation;
	uint8_t pci_config[VFN_PCI_CONFIG_SIZE];
	uint8_t msix_table[VFN_MAX_VECTORS * 16];
	int bar2_fd; /* memfd, -1: nobody asked for it since the last reset */
	struct virtio_net_config config;
	uint16_t mtu;	/* in force: at most the one that the driver knows */
	bool unplugged; /* the operator's link register is 0 */

	/* Interrupts: the link's duplicate of each vector's eventfd. */
	int irq_fd[VFN_MAX_VECTORS];
	/* Atomic: the eventfd blocked who signalled it, and is dead until it is replaced. */
	bool irq_blocked[VFN_MAX_VECTORS];
	bool irqs_held; /* atomic: one of them did so just now, so none is signalled */
	bool irq_told;	/* atomic */

	/* IOMMU. */
	struct vringh_mem dma; /* VFN_DMA_GUEST */
	struct vringh_mem own; /* VFN_DMA_OWN */
	bool memory_lost;      /* some of it was replaced; set by the handler, see lost.c */

	/* Dirty log. */
	uint64_t log_addr;
	uint64_t log_len;
	bool log_on;

	/* State: the window, and what became of the last command. */
	uint8_t state[VFN_STATE_SIZE];
	uint32_t state_len;
	uint32_t state_result;

	/* Network side. */
	struct vfn_function *peer; /* the function itself where the port is no wire */
	struct vfn_poller *poller[VFN_MAX_POLLERS];
	unsigned int nb_pollers;
	struct vfn_rate *rate; /* of what the guest sends, NULL: no limit */
	struct vfn_work *work; /* per transmit and receive queue, the control queue's, and jobs */
	unsigned int nb_work;  /* handed to pollers now */

	struct vfn_ethdev *ethdev; /* port=ethdev */
	uint8_t *gen_frame;	   /* port=gen: what every frame looks like */

	/* Control queue. */
	struct vfn_filter filter;
	uint64_t offloads_off; /* GUEST_* features that are negotiated, but switched off now */
	bool ctrl_scheduled;   /* set by the poller, atomically; cleared by control */
	uint64_t ctrl_next;    /* TSC of the next round at the pace, whoever schedules it */

	uint16_t nb_queues;
	struct vfn_queue *queue;
};

TAILQ_HEAD(vfn_function_list, vfn_function);
extern struct vfn_function_list vfn_functions;
extern pthread_mutex_t vfn_control_lock;

static inline bool
vfn_has(const struct vfn_function *fn, unsigned int bit)
{
	return fn->driver_features & FEATURE(bit);
}

/* An offload of the receiver's, negotiated and on (5.1.6.5.6)? */
static inline bool
vfn_takes(const struct vfn_function *fn, unsigned int bit)
{
	return fn->driver_features & ~fn->offloads_off & FEATURE(bit);
}

/* Of the net class: shorter for a legacy driver without mergeable buffers (5.1.6.1). */
static inline uint32_t
vfn_net_hdr_len(const struct vfn_function *fn)
{
	return fn->driver_features &
			(FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_NET_F_MRG_RXBUF)) ?
		sizeof(struct virtio_net_hdr_mrg_rxbuf) :
		sizeof(struct virtio_net_hdr);
}

/* net_ethdev.c, net_ethdev_io.c: a DPDK port at the other end. */
int vfn_ethdev_new(struct vfn_function *fn);
void vfn_ethdev_open(struct vfn_function *fn);
void vfn_ethdev_close(struct vfn_function *fn);
enum vfn_link_down vfn_ethdev_down(const struct vfn_function *fn);
unsigned int vfn_ethdev_work(
	struct vfn_function *fn, struct vfn_queue **rx, unsigned int n, struct vfn_work *w);
struct vfn_poller *vfn_ethdev_tx_poller(const struct vfn_function *fn, unsigned int pair);
unsigned int vfn_ethdev_send(struct vfn_work *work);

/* Frames pass while there is another end and no operator has unplugged one of the two. */
static inline enum vfn_link_down
vfn_link_down(const struct vfn_function *fn)
{
	if (fn->unplugged)
		return VFN_LINK_UNPLUGGED;
	if (fn->peer == NULL)
		return VFN_LINK_NO_PEER;
	if (fn->peer->unplugged)
		return VFN_LINK_PEER_UNPLUGGED;
	return fn->ethdev != NULL ? vfn_ethdev_down(fn) : VFN_LINK_UP;
}

static inline bool
vfn_link_up(const struct vfn_function *fn)
{
	return vfn_link_down(fn) == VFN_LINK_UP;
}

/* Queue numbers of the net class (5.1.2). */
static inline bool
vfn_queue_is_tx(const struct vfn_queue *q)
{
	return q->index % 2 == 1;
}

/* The control queue follows the last pair; without VIRTIO_NET_F_MQ there is one pair. */
static inline unsigned int
vfn_ctrl_index(const struct vfn_function *fn)
{
	return vfn_has(fn, VIRTIO_NET_F_MQ) ? 2u * fn->params.max_pairs : 2u;
}

/* A vector for each queue and one for configuration changes. */
static inline unsigned int
vfn_nb_vectors(const struct vfn_function *fn)
{
	return fn->nb_queues + 1u;
}

/* function.c: what exists. */
int vfn_function_create(const struct vfn_function_params *params, struct vfn_function **fn);
void vfn_function_destroy(struct vfn_function *fn);

/* regs.c: trapped register access; -EINVAL where there is no register of that width. */
void vfn_regs_init(struct vfn_function *fn);
int vfn_regs_read(
	struct vfn_function *fn, unsigned int region, uint64_t offset, void *buf, size_t len);
int vfn_regs_write(
	struct vfn_function *fn, unsigned int region, uint64_t offset, const void *buf, size_t len);
void vfn_function_reset(struct vfn_function *fn);
/* Registers as after a reset, while no poller has any work of the function. */
void vfn_regs_clear(struct vfn_function *fn);
bool vfn_regs_features_ok(const struct vfn_function *fn);

/* config.c: the device configuration. The setters are registers: 0, -EINVAL or -ENOTSUP. */
#define VFN_ISR_CONFIG 2 /* 4.1.4.5 */
void vfn_config_changed(struct vfn_function *fn);
void vfn_config_reset(struct vfn_function *fn);
void vfn_config_link(struct vfn_function *fn);
int vfn_config_set_link(struct vfn_function *fn, uint32_t up);
int vfn_config_set_announce(struct vfn_function *fn, uint32_t announce);
int vfn_config_set_mtu(struct vfn_function *fn, uint32_t mtu);
void vfn_config_set_mac(struct vfn_function *fn, const uint8_t mac[6]);

/* bar2.c: the doorbells as a file. */
int vfn_bar2_fd(struct vfn_function *fn);
void vfn_bar2_close(struct vfn_function *fn);
void vfn_bar2_read(const struct vfn_function *fn, uint64_t offset, void *buf, size_t len);
void vfn_bar2_store(const struct vfn_function *fn, uint64_t offset, const void *buf, size_t len);

/* dma.c: the map table. */
int vfn_dma_map(struct vfn_function *fn, const struct vfn_dma_map *map);
int vfn_dma_unmap(struct vfn_function *fn, enum vfn_dma_space space, uint64_t iova, uint64_t len);
void vfn_dma_free(struct vfn_function *fn);
/* Memory of the function's own; NULL if some of it is not mapped. Valid until the next unmap. */
void *vfn_dma_own(const struct vfn_function *fn, uint64_t iova, uint64_t len);

/* lost.c: memory that was taken away. */
void vfn_lost_tell(void);
void vfn_lost_check(struct vfn_function *fn);

/* log.c: the dirty log. */
void vfn_log_control(struct vfn_function *fn, bool on);
bool vfn_log_queue(struct vfn_queue *q);

/* state.c: the window's content, got, checked or set. */
void vfn_state_control(struct vfn_function *fn, uint32_t command);

/* inflight.c: the in-flight region. */
bool vfn_inflight_begin(struct vfn_queue *q);
void vfn_inflight_unmapped(struct vfn_queue *q);

/* queue.c: control of one queue. */
void vfn_queue_init(struct vfn_queue *q);
bool vfn_queue_active(const struct vfn_queue *q);
struct vringh_config vfn_queue_config(struct vfn_queue *q);
void vfn_queue_enable(struct vfn_queue *q);
void vfn_queue_suspend(struct vfn_queue *q, bool suspend);
void vfn_queues_suspend(struct vfn_function *fn, bool suspend);
void vfn_queue_set_vector(struct vfn_queue *q, uint16_t vector);
int vfn_queue_set_doorbell(struct vfn_queue *q, int fd);
void vfn_queue_set_job(struct vfn_queue *q, struct vfn_job *job);
int vfn_irq_set(struct vfn_function *fn, unsigned int vector, int fd);
uint64_t vfn_queue_stat(const struct vfn_queue *q, enum vfn_stat stat);
/* Any thread: signal the eventfd of a vector; false if it is not to be signalled any more. */
bool vfn_irq_signal(struct vfn_function *fn, unsigned int vector, int fd);
/* Control lock not held: interrupts that were held back are not made up for any more. */
void vfn_irq_cancel(struct vfn_function *fn);
/* Poller: notify the driver if it wants to know; deal with a queue that broke. */
void vfn_queue_call(struct vfn_queue *q);
void vfn_queue_broken(struct vfn_queue *q);

/* port.c: which queue's frames go where, and who moves them. */
int vfn_port_open(struct vfn_function *fn);
void vfn_port_close(struct vfn_function *fn);
void vfn_port_wake(const struct vfn_queue *q);
void vfn_port_stop(struct vfn_function *fn);
void vfn_port_start(struct vfn_function *fn);

/* poller.c, poller_loop.c */
int vfn_poller_get(
	const struct vfn_function_params *params, unsigned int i, struct vfn_poller **poller);
void vfn_poller_put(struct vfn_poller *poller);
unsigned int vfn_poller_count(const struct vfn_function_params *params);
void vfn_poller_remove(struct vfn_poller *poller, struct vfn_function *fn);
void vfn_poller_add(struct vfn_poller *poller, struct vfn_function *fn);
void vfn_poller_wake(struct vfn_poller *poller);
void vfn_poller_stats(struct vfn_poller *poller, struct vfn_poller_stats *stats);
void vfn_poller_numa_check(struct vfn_poller *poller, const struct vfn_queue *q);
/* Room for one burst of each direction, and for one frame of any size; the poller's own. */
struct vringh_batch *vfn_poller_batch(struct vfn_poller *poller, unsigned int direction);
uint8_t *vfn_poller_scratch(struct vfn_poller *poller);
/* NUMA node of a CPU, or SOCKET_ID_ANY. */
int vfn_cpu_node(unsigned int cpu);

/* filter.c: what a function receives. The commands return virtio_net_ctrl_ack. */
void vfn_filter_reset(struct vfn_function *fn);
uint8_t vfn_filter_rx_command(
	struct vfn_function *fn, uint8_t cmd, const uint8_t *data, size_t len);
uint8_t vfn_filter_mac_command(
	struct vfn_function *fn, uint8_t cmd, const uint8_t *data, size_t len);
uint8_t vfn_filter_vlan_command(
	struct vfn_function *fn, uint8_t cmd, const uint8_t *data, size_t len);
bool vfn_filter_needed(const struct vfn_function *fn);
bool vfn_filter_accepts(const struct vfn_function *fn, const uint8_t *head, uint32_t len);

/* net_gen.c: the ports that end here. */
int vfn_gen_open(struct vfn_function *fn);
void vfn_gen_prepare(struct vfn_function *fn);
unsigned int vfn_gen_run(struct vfn_work *work);
unsigned int vfn_sink_run(struct vfn_work *work);

/* net.c, ctrl.c: the net class. */
#define VFN_NET_BURST 32
/* As nearly all have it, see vfn_net_hdr_len(). */
#define VFN_NET_HDR_SIZE sizeof(struct virtio_net_hdr_mrg_rxbuf)
/* An IP packet of the largest size with Ethernet and VLAN headers. */
#define VFN_NET_MAX_FRAME (65535u + 14 + 4)
/* What a frame in a poller's scratch may grow by at its front. */
#define VFN_GSO_ROOM 8
uint64_t vfn_net_features(const struct vfn_function_params *params);
uint64_t vfn_net_features_missing(uint64_t features);
unsigned int vfn_net_forward(struct vfn_work *work);
unsigned int vfn_ctrl_run(struct vfn_work *work);
/* What CTRL_GUEST_OFFLOADS is about, as bits of the feature word (5.1.6.5.6). */
#define VFN_CTRL_GUEST_OFFLOADS \
	(FEATURE(VIRTIO_NET_F_GUEST_CSUM) | FEATURE(VIRTIO_NET_F_GUEST_TSO4) | \
		FEATURE(VIRTIO_NET_F_GUEST_TSO6) | FEATURE(VIRTIO_NET_F_GUEST_ECN) | \
		FEATURE(VIRTIO_NET_F_GUEST_UFO))
/* Carry out a command of the control queue: VIRTIO_NET_OK or _ERR. */
uint8_t vfn_ctrl_command(
	struct vfn_function *fn, uint8_t class, uint8_t cmd, const uint8_t *data, size_t len);
void vfn_ctrl_cancel(struct vfn_function *fn);

#endif /* VFN_FUNCTION_H */
