/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The core of a virtio function, private to lib/function: registers, queues, interrupts, memory.
 *
 * Execution contexts:
 *  - control: any thread that came through the link or manage.c, with the function locked;
 *  - poller: one thread (or DPDK service) per struct vfn_poller, never blocked by control.
 * A field belongs to one of the two. Control changes what belongs to pollers only between
 * vfn_quiesce() and vfn_resume(), when no poller has the function's work.
 */

#ifndef VFN_FUNCTION_H
#define VFN_FUNCTION_H

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>

#include <linux/virtio_config.h>

#include <rte_log.h>
#include <vringh.h>

#include "class/class.h"
#include "iommu.h"
#include "log.h"
#include "poller/work.h"
#include "vfn_function.h"
#include "vfn_link.h"
#include "vfn_regs.h"

extern int vfn_logtype;
#define VFN_LOG(level, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_logtype, "vfn: " fmt "\n", ##__VA_ARGS__)
/* Most of what is worth telling a guest can bring about as often as it likes. */
#define FN_LOG(level, fn, fmt, ...) \
	(vfn_log_may((struct vfn_log_pace *)(uintptr_t) & (fn)->log_pace, RTE_LOG_##level) ? \
			rte_log(RTE_LOG_##level, vfn_logtype, "%s: " fmt "\n", (fn)->params.name, \
				##__VA_ARGS__) : \
			0)

#define FEATURE(bit) (UINT64_C(1) << (bit))

#define NO_VECTOR 0xffff

struct vfn_lock;

/* Registers of a queue. */
struct vfn_queue_regs {
	uint16_t size;
	uint16_t vector;
	bool enabled;
	bool suspended;
	bool moving;   /* was reset while suspended: until it is enabled, senders wait */
	uint8_t error; /* enum vringh_error of the last enable */
	uint64_t area[3];
	uint64_t dirty;		      /* what the dirty log calls the device area */
	uint64_t inflight_addr;	      /* of the in-flight region in VFN_DMA_OWN */
	uint32_t inflight_len;	      /* 0: none */
	struct vringh_state position; /* where to start, until enabled */
};

/*
 * What can be read in, and was written to, the registers: plain data, to be saved, checked and set
 * as a whole. What stands behind it (rings, fds, memory) is in the function. Control.
 */
struct vfn_regs {
	uint64_t driver_features;
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t config_vector;
	uint16_t queue_select;
	uint8_t status;
	bool dirty_on;
	uint64_t dirty_addr;
	uint64_t dirty_len;
	struct vfn_queue_regs queue[VFN_MAX_QUEUES];
	/* The class's, see its header. */
	_Alignas(8) uint8_t class[VFN_CLASS_REGS_SIZE];
};

/* Configuration space and the MSI-X table: what a reset of the device leaves alone. */
struct vfn_pci {
	uint8_t config[VFN_PCI_CONFIG_SIZE];
	uint8_t msix_table[VFN_MAX_VECTORS * 16];
};

/* Of vfn_queue.call_fd, where there is no eventfd to signal. */
#define VFN_CALL_NOBODY -1
#define VFN_CALL_SLOWLY -2 /* ask irq.c */

struct vfn_queue {
	/* Poller, or control while quiet. */
	struct vringh vr;
	struct vringh_inflight inflight;
	uint64_t stats[VFN_STATS_MAX];
	int call_fd; /* of the queue's vector, or VFN_CALL_* */
	uint16_t call_vector;
	bool broken_told;
	bool deaf; /* nobody wakes its poller for it */
	struct vfn_park park;
	struct vfn_account account;

	/* Control. */
	struct vfn_function *fn;
	uint16_t index;
	bool begun;	    /* its ring was mapped since it was enabled */
	uint16_t *resubmit; /* room for what was in flight */
	int doorbell_fd;
	struct vfn_job *job; /* of the driver, NULL: none */
	struct vfn_work job_work;
};

/* A vector's eventfd, the link's duplicate. Behind the vectors of MSI-X comes the interrupt pin. */
struct vfn_irq {
	int fd;	      /* -1: none */
	bool blocked; /* atomic: it blocked who signalled it, and is dead until it is replaced */
	bool pending; /* atomic: raised while masked */
	struct vfn_irq_call *call; /* in place of the eventfd, or NULL */
};

/* A class's struct begins with it. */
struct vfn_function {
	struct vfn_link link;
	TAILQ_ENTRY(vfn_function) next;
	struct vfn_lock *lock; /* atomic: its own or its partner's, see function.c */
	struct vfn_lock *own_lock;
	const struct vfn_class *class;
	struct vfn_function_params params;
	struct vfn_log_pace log_pace;
	uint64_t device_features;

	struct vfn_regs regs;
	struct vfn_pci pci;
	uint8_t isr;	  /* atomic: VFN_ISR_* */
	int doorbells_fd; /* memfd of BAR 2, -1: nobody asked for it since the last reset */
	/* The device configuration as it was last read, and whether it is known to be another. */
	uint8_t config_seen[VFN_CLASS_CONFIG_SIZE];
	bool config_is_new;
	uint8_t config_generation;
	/* The window, and what became of the last command. */
	uint8_t parts[VFN_PARTS_SIZE];
	uint32_t parts_len;
	uint32_t parts_result;

	struct vfn_irq irq[VFN_MAX_VECTORS + 1];
	bool irqs_held; /* atomic: one of them blocked just now, so none is signalled */
	bool irq_told;	/* atomic */

	struct vfn_iommu iommu;
	struct vfn_platform *platform; /* asked of VFN_DMA_GUEST; NULL: all is reached */
	struct vringh_mem dma;	       /* VFN_DMA_GUEST */
	struct vfn_dma_former *dma_former;
	struct vringh_mem own;	    /* VFN_DMA_OWN */
	struct vringh_io forgetful; /* VFN_FAULT_NO_FLUSH: hooks in place of a map's */
	bool memory_lost;	    /* some of it was replaced; set by the handler, see lost.c */
	bool ring_lost;		    /* atomic: a ring broke that only a reset of the device mends */

	struct vfn_poller *poller[VFN_MAX_POLLERS];
	unsigned int nb_pollers;
	struct vfn_work **work; /* handed to pollers now */
	unsigned int nb_work;
	/* The function whose work has queues of this one, and the other way round; NULL: none. */
	struct vfn_function *partner;

	uint16_t nb_queues;
	struct vfn_queue *queue;
};

/* What it offers whatever its class. */
static inline uint64_t
vfn_core_features(const struct vfn_function *fn)
{
	return fn->params.dma != VFN_DMA_PLAIN ? FEATURE(VIRTIO_F_ACCESS_PLATFORM) : 0;
}

static inline bool
vfn_regs_have(const struct vfn_regs *regs, unsigned int bit)
{
	return regs->driver_features & FEATURE(bit);
}

static inline bool
vfn_has(const struct vfn_function *fn, unsigned int bit)
{
	return vfn_regs_have(&fn->regs, bit);
}

/* What addresses in descriptors and of rings are in. */
static inline struct vringh_mem *
vfn_guest_mem(struct vfn_function *fn)
{
	return fn->iommu.call != NULL ? &fn->iommu.mem : &fn->dma;
}

static inline struct vfn_queue_regs *
vfn_queue_regs(const struct vfn_queue *q)
{
	return &q->fn->regs.queue[q->index];
}

/* Who polls a queue, as far as that is up to the queue. */
static inline struct vfn_poller *
vfn_queue_poller(const struct vfn_queue *q)
{
	return q->fn->poller[q->index / q->fn->class->stride % q->fn->nb_pollers];
}

/* A vector for each queue and one for configuration changes. */
static inline unsigned int
vfn_nb_vectors(const struct vfn_function *fn)
{
	return fn->nb_queues + 1u;
}

/*
 * function.c: what exists, and who may touch it. The list is locked before a function, and two
 * functions are locked by one lock, that of partners, or while the list is.
 */
void vfn_lock(struct vfn_function *fn);
void vfn_unlock(struct vfn_function *fn);
void vfn_list_lock(void);
void vfn_list_unlock(void);
/* The list is locked. NULL: the first one. */
struct vfn_function *vfn_next(const struct vfn_function *fn);
/* Call for every function, each locked. Neither the list is nor a function. */
void vfn_foreach(void (*call)(struct vfn_function *fn));
/*
 * The list is locked. fn is locked and quiet, and so is then its partner, with it; and the other
 * way round: both are locked and quiet, each for itself.
 */
void vfn_join(struct vfn_function *fn, struct vfn_function *partner);
void vfn_part(struct vfn_function *fn);
/* Not locked: the function is gone on return. */
void vfn_function_close(struct vfn_function *fn);

/* quiesce.c: stop, change, start. */
void vfn_quiesce(struct vfn_function *fn);
/* While it is quiet: nothing of a queue, or of all (NULL), is being worked on. False: some is. */
bool vfn_drain(struct vfn_function *fn, struct vfn_queue *q);
void vfn_resume(struct vfn_function *fn);
void vfn_work_add(struct vfn_function *fn, struct vfn_work *work);
void vfn_work_wake(const struct vfn_queue *q);
/* manage.c: the function's pollers, while no work is handed out. 0 or a negative errno. */
int vfn_pollers_get(struct vfn_function *fn);
void vfn_pollers_put(struct vfn_function *fn);

/* pci.c: trapped register access; -EINVAL where there is no register of that width. */
void vfn_pci_power_on(struct vfn_function *fn);
bool vfn_pci_master(const struct vfn_function *fn);
bool vfn_pci_intx_off(const struct vfn_function *fn);
bool vfn_pci_msix_on(const struct vfn_function *fn);
bool vfn_pci_msix_masked(const struct vfn_function *fn, unsigned int vector);
int vfn_regs_read(
	struct vfn_function *fn, unsigned int region, uint64_t offset, void *buf, size_t len);
int vfn_regs_write(
	struct vfn_function *fn, unsigned int region, uint64_t offset, const void *buf, size_t len);

/* common.c, vendor.c: the structures in BAR 0, by offsets in each; as the two above. */
int vfn_common_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len);
int vfn_common_write(struct vfn_function *fn, uint64_t offset, uint32_t v, size_t len);
/* The device configuration, by the driver. */
int vfn_device_config_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len);
int vfn_vendor_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len);
int vfn_vendor_write(struct vfn_function *fn, uint64_t offset, uint32_t v, size_t len);
int vfn_stats_read(struct vfn_function *fn, uint64_t offset, void *buf, size_t len);
/* False, and nothing has changed, if what it works on does not end. */
bool vfn_function_reset(struct vfn_function *fn);
/* Registers as after a reset. */
void vfn_regs_clear(const struct vfn_function *fn, struct vfn_regs *regs);
bool vfn_regs_features_ok(const struct vfn_function *fn, const struct vfn_regs *regs);

static inline struct vfn_queue *
vfn_selected(struct vfn_function *fn)
{
	return fn->regs.queue_select < fn->nb_queues ? &fn->queue[fn->regs.queue_select] : NULL;
}

static inline void
vfn_set_half(uint64_t *v, bool high, uint32_t half)
{
	*v = high ? (*v & UINT32_MAX) | (uint64_t)half << 32 : (*v & ~(uint64_t)UINT32_MAX) | half;
}

/* Bytes of a structure, if it has them. */
static inline int
vfn_read_struct(uint64_t offset, void *buf, size_t len, const void *from, size_t size)
{
	if (offset > size || len > size - offset)
		return -EINVAL;
	memcpy(buf, (const uint8_t *)from + offset, len);
	return 0;
}

/* doorbell.c: BAR 2 as a file. */
int vfn_doorbells_fd(struct vfn_function *fn);
void vfn_doorbells_close(struct vfn_function *fn);
void vfn_doorbells_read(const struct vfn_function *fn, uint64_t offset, void *buf, size_t len);
int vfn_doorbells_write(struct vfn_function *fn, uint64_t offset, const void *buf, size_t len);

/* irq.c: interrupts. */
#define VFN_ISR_QUEUE  1 /* 4.1.4.5 */
#define VFN_ISR_CONFIG 2
int vfn_irq_set(struct vfn_function *fn, unsigned int vector, int fd);
int vfn_irq_set_call(struct vfn_function *fn, unsigned int vector, struct vfn_irq_call *call);
/* What decides about interrupts has changed, of one queue or all, while no poller has them. */
void vfn_queue_irq(struct vfn_queue *q);
void vfn_irqs_update(struct vfn_function *fn);
/* What was raised while it was masked. */
void vfn_irqs_deliver(struct vfn_function *fn);
/* The device configuration or the status changed (4.1.5.4). */
void vfn_config_changed(struct vfn_function *fn);
/* Not locked: interrupts that were held back are not made up for any more. */
void vfn_irqs_cancel(struct vfn_function *fn);
/* Poller: notify the driver if it wants to know. */
void vfn_queue_call(struct vfn_queue *q);

/* dma.c: the map table. */
/* The platform of the mode that the function has. */
struct vfn_platform *vfn_dma_platform(struct vfn_function *fn);
int vfn_dma_map(struct vfn_function *fn, const struct vfn_dma_map *map);
int vfn_dma_unmap(struct vfn_function *fn, enum vfn_dma_space space, uint64_t iova, uint64_t len);
void vfn_dma_free(struct vfn_function *fn);
/* Of a queue that starts: maps that its areas are spread over become one piece. */
void vfn_dma_join_ring(const struct vfn_queue *q);
/* Memory of the function's own; NULL if some of it is not mapped. Valid until the next unmap. */
void *vfn_dma_own(const struct vfn_function *fn, uint64_t iova, uint64_t len);

/* lost.c: memory that was taken away, and rings that broke. */
void vfn_lost_check(struct vfn_function *fn);
/* Poller or control: only a reset of the device mends it. */
void vfn_lost_ring(struct vfn_function *fn);

/* dirty.c: the dirty log. */
void vfn_dirty_control(struct vfn_function *fn, bool on);
bool vfn_dirty_queue(struct vfn_queue *q);

/* parts.c: the window's content, got, checked or set. */
void vfn_parts_control(struct vfn_function *fn, uint32_t command);
/* To VFN_PARTS_SIZE bytes; quiesced. How many they are, 0: too many. */
uint32_t vfn_parts_write(struct vfn_function *fn, uint8_t *to);

/* inflight.c: the in-flight region. */
bool vfn_inflight_begin(struct vfn_queue *q);
void vfn_inflight_unmapped(struct vfn_queue *q);
/* Of a control queue, before what was fetched is completed; quiesced. */
void vfn_inflight_said(struct vfn_queue *q);

/* queue.c: control of one queue. */
void vfn_queue_clear(const struct vfn_function *fn, struct vfn_regs *regs, unsigned int index);
bool vfn_queue_active(const struct vfn_queue *q);
struct vringh_config vfn_queue_config(
	struct vfn_function *fn, const struct vfn_regs *regs, unsigned int index);
void vfn_queue_enable(struct vfn_queue *q);
void vfn_queue_suspend(struct vfn_queue *q, bool suspend);
void vfn_queues_suspend(struct vfn_function *fn, bool suspend);
void vfn_queue_set_vector(struct vfn_queue *q, uint16_t vector);
int vfn_queue_set_doorbell(struct vfn_queue *q, int fd);
void vfn_queue_set_job(struct vfn_queue *q, struct vfn_job *job);
bool vfn_queue_polled(const struct vfn_queue *q);
struct vringh_state vfn_queue_position(const struct vfn_queue *q);
uint64_t vfn_queue_stat(const struct vfn_queue *q, unsigned int stat);
/* Control, quiet: the ring is mapped, for the first time or again. */
void vfn_queue_ring(struct vfn_queue *q);
/* Poller: deal with a queue that broke. */
void vfn_queue_broken(struct vfn_queue *q);

int vfn_fetch_slow(struct vfn_queue *q, struct vringh_batch *batch, unsigned int max);

/*
 * Poller, or control in its place: vringh_fetch(), with what is to be done where it does not
 * succeed. 0 also if the queue waits for a translation (vfn_park_waits()); below 0 it is broken.
 */
static inline int
vfn_fetch(struct vfn_queue *q, struct vringh_batch *batch, unsigned int max)
{
	int n = unlikely(q->fn->iommu.call != NULL) ? vfn_fetch_slow(q, batch, max) :
						      vringh_fetch(&q->vr, batch, max);

	if (unlikely(n < 0))
		vfn_queue_broken(q);
	return n;
}

#endif /* VFN_FUNCTION_H */
