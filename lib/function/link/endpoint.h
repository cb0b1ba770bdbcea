/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * What the files of an endpoint share. It is an adaptor between the server's end of vfio-user and
 * any link, so it knows the function by its registers only.
 *
 * Threads: the operations of lib/vfio_user on the endpoint's server thread, interrupts that have to
 * be passed on by hand on a second one (endpoint_irq.c).
 */

#ifndef VFN_LINK_ENDPOINT_H
#define VFN_LINK_ENDPOINT_H

#include <pthread.h>

#include <rte_log.h>

#include <vfn_map.h>
#include <vfn_parts.h>
#include <vfu_server.h>

#include "../vfn_endpoint_server.h"

extern int vfn_endpoint_logtype;
#define EP_LOG(level, ep, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_endpoint_logtype, "%s: " fmt "\n", (ep)->name, ##__VA_ARGS__)

/* A function that does not answer within this time is broken. */
#define EP_ANSWER_MS 1000

/* Memory of the client that is mapped here. */
struct ep_map {
	uint64_t address, size; /* as the client calls it */
	struct vfn_map *map;
};

/* The interrupt pin: level-triggered, and masked when it is signalled (VFIO). */
struct ep_intx {
	int line_fd;   /* the function signals it */
	int fd;	       /* the client's, -1: none */
	int unmask_fd; /* the client's, -1: none */
	bool masked;
};

/* Collected, or to be read, while the device migrates: struct ep_state and what follows it. */
struct ep_saved {
	uint8_t *data; /* NULL: none */
	size_t len, at;
};

struct vfn_endpoint {
	struct vfn_link *link;
	struct vfn_function *fn;
	vfn_endpoint_offer offer;
	bool busy;
	char name[64];
	unsigned int nb_queues, nb_vectors;
	uint8_t msix; /* offset of the capability */

	struct vfu_server *server;
	int listen_fd, fd;
	int stop_fd, ended_fd;
	pthread_t server_thread, irq_thread;

	/* Server thread. */
	struct ep_map *map; /* VFU_MAX_MAPS */
	bool table_written; /* the client fills the MSI-X table itself */
	int doorbell_fd[VFN_MAX_QUEUES]; /* our own, -1: none */
	int msix_fd[VFN_MAX_VECTORS];	 /* of the client, to be triggered; -1: none */
	struct ep_saved saved;
	bool driver_ok;	     /* of the state that was loaded: the device has it once it runs */
	struct vfn_map *log; /* NULL: nothing is logged for the client */
	uint64_t log_len;
	uint64_t change_empty; /* the bucket of changes: when it was empty, in ns */

	/* Server thread and irq thread. */
	pthread_mutex_t irq_lock;
	struct ep_intx intx;
	int err_fd, req_fd; /* the client's, -1: none */
	int epoll_fd, irq_wake_fd;
	bool broken; /* the function has asked for a reset */
	bool quit;

	/* Any thread, atomically. */
	pid_t client;
	uint64_t clients, map_bytes, accesses, slowed, refused;
	uint32_t nb_maps, unreachable;
	bool logging;
	uint32_t state; /* enum vfio_device_mig_state */
};

/* ---- vfio_user.c ---- */

/* Registers of the function: 0 or a negative errno value; reads are 0 on failure. */
uint32_t ep_get(struct vfn_endpoint *ep, unsigned int region, uint64_t offset, size_t len);
int ep_set(struct vfn_endpoint *ep, unsigned int region, uint64_t offset, size_t len, uint32_t v);
/* Wait until a register has a value: 0 or -ETIMEDOUT. */
int ep_wait(struct vfn_endpoint *ep, unsigned int region, uint64_t offset, size_t len, uint32_t v);
#define EP_FIELD(kind, field) \
	VFN_REGION_BAR0, VFN_OFF_##kind + offsetof(EP_STRUCT_##kind, field), \
		sizeof(((EP_STRUCT_##kind *)NULL)->field)
#define EP_STRUCT_COMMON	     struct vfn_common_cfg
#define EP_STRUCT_VENDOR	     struct vfn_vendor_cfg
#define EP_GET(ep, kind, field)	     ep_get(ep, EP_FIELD(kind, field))
#define EP_SET(ep, kind, field, v)   ep_set(ep, EP_FIELD(kind, field), v)
#define EP_WAIT(ep, kind, field, v) ep_wait(ep, EP_FIELD(kind, field), v)

#define EP_PCI_COMMAND		0x04
#define EP_PCI_COMMAND_INTX_OFF 0x0400
#define EP_PCI_STATUS		0x06
#define EP_PCI_STATUS_INTX	0x08
#define EP_MSIX_CONTROL		2 /* in the capability */
#define EP_MSIX_ON		0x8000
#define EP_MSIX_MASKED		0x4000
#define EP_MSIX_ENTRY		16
#define EP_MSIX_ENTRY_CONTROL	12

/* The client is about to change something: wait until it may. */
void ep_change(struct vfn_endpoint *ep);

static inline void
ep_count(uint64_t *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* ---- endpoint_irq.c ---- */

int ep_irq_init(struct vfn_endpoint *ep);
void ep_irq_fini(struct vfn_endpoint *ep);
uint32_t ep_irqs(void *device, unsigned int index, uint32_t *flags);
int ep_irq_fd(void *device, unsigned int index, unsigned int irq, int fd);
int ep_irq_mask(void *device, unsigned int index, unsigned int irq, bool mask);
int ep_irq_unmask_fd(void *device, unsigned int index, unsigned int irq, int fd);
int ep_irq_trigger(void *device, unsigned int index, unsigned int irq);
/* A client came, or is gone. */
int ep_irq_attach(struct vfn_endpoint *ep);
void ep_irq_detach(struct vfn_endpoint *ep);
/* The MSI-X table, pending bits and the pin as after power-on; eventfds stay. */
void ep_irq_reset(struct vfn_endpoint *ep);
int ep_ioeventfds(void *device, unsigned int index, struct vfu_ioeventfd *fds);
/* What was signalled before and nobody may have seen is signalled again. */
void ep_irq_remind(struct vfn_endpoint *ep);

/* ---- endpoint_dma.c ---- */

int ep_dma_map(void *device, const struct vfu_dma *dma);
int ep_dma_unmap(void *device, const struct vfu_dma *dma);
void ep_dma_detach(struct vfn_endpoint *ep);
int ep_log_start(void *device, uint64_t *page_size, const struct vfu_log_range *ranges,
	unsigned int nb_ranges);
int ep_log_stop(void *device);
int ep_log_report(void *device, uint64_t iova, uint64_t length, uint64_t page_size,
	uint64_t *bitmap);
/* A reset of the function has ended the log: the client's goes on. */
void ep_log_keep(struct vfn_endpoint *ep);

/* ---- endpoint_state.c ---- */

int ep_migrate(void *device, enum vfio_device_mig_state from, enum vfio_device_mig_state to);
ssize_t ep_state_read(void *device, void *buf, size_t len);
int ep_state_write(void *device, const void *buf, size_t len);
void ep_state_free(struct vfn_endpoint *ep);
const char *ep_state_name(uint32_t state);

#endif /* VFN_LINK_ENDPOINT_H */
