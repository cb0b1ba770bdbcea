/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * The vDPA driver's own declarations. It turns what librte_vhost wants into register writes and
 * DMA maps of a virtio function behind a link; packets are not its business.
 *
 * Threads: librte_vhost calls the operations that have a vid on its one message thread, the
 * others on any thread. Everything is under the device's lock, and short as long as the function
 * answers; how long that is waited for has a bound.
 */

#ifndef VFN_DRV_H
#define VFN_DRV_H

#include <inttypes.h>
#include <pthread.h>
#include <sys/queue.h>

#include <linux/virtio_net.h>

#include <rte_log.h>

#include <vfn_blk_function.h>
#include <vfn_endpoint.h>
#include <vfn_link.h>
#include <vfn_map.h>
#include <vfn_net_function.h>
#include <vfn_sdk.h>
#include <vfn_vpci.h>
#include <vfu_client.h>

#include "vfn_class.h"

extern int vfn_drv_logtype;
#define DRV_LOG(level, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_drv_logtype, "vfn: " fmt "\n", ##__VA_ARGS__)
#define DEV_LOG(level, dev, fmt, ...) \
	rte_log(RTE_LOG_##level, vfn_drv_logtype, "%s: " fmt "\n", (dev)->name, ##__VA_ARGS__)

/* Life cycle of a device, see the table in vfn_life.c. */
enum vfn_state {
	VFN_IDLE,	/* no guest, the function is reset */
	VFN_CONFIGURED, /* features and memory are set, no queue runs */
	VFN_RUNNING,	/* queues that are ready run */
	VFN_SUSPENDED,	/* queues stand still, their positions were handed back */
	/* A guest's set-up was refused, or the function has failed: then its memory stays mapped.
	 */
	VFN_FAILED,
	VFN_STATE_MAX,
};

/* Who logs dirty pages while the guest migrates. */
enum vfn_lm {
	VFN_LM_OFF,    /* nobody: migration is not offered */
	VFN_LM_HW,     /* the function */
	VFN_LM_SHADOW, /* the driver, which relays between the guest's rings and its own */
};

/* Device arguments. */
struct vfn_args {
	bool endpoint;			     /* the function is in another process */
	bool ntb;			     /* and that at the other side of a bridge */
	uint32_t ntb_mb;		     /* what it may write of ours then */
	uint32_t ntb_us;		     /* how long what we write takes */
	char path[108];			     /* of its socket, as in struct sockaddr_un */
	bool control;			     /* and what it is is decided here */
	struct vfn_function_params function; /* without class_params: that is net */
	struct vfn_net_params net;
	bool is_blk; /* then that is */
	struct vfn_blk_params blk;
	enum vfn_lm lm;
	uint32_t drain_ms;	/* a function that takes longer to stop is reset */
	bool doorbell;		/* offer guests to ring by a plain store */
	char inflight[256];	/* directory, or "" */
	char vduse[256];	/* name of the kernel's device, or "": a front-end's */
	uint32_t vduse_timeout; /* seconds */
	bool vduse_packed;	/* offer packed rings */
};

/* A region of the guest's memory. */
struct vfn_mem_region {
	uint64_t gpa, size;
	uint64_t theirs; /* librte_vhost's address of it */
	uint64_t uva;	 /* the front-end's */
	struct vfn_map *map;
	uint64_t dev, ino; /* of the file */
};

/* What of it the platform lets us, and the function, reach. */
struct vfn_memory {
	uint32_t nb_regions;
	struct vfn_mem_region *region;
	uint64_t end; /* of guest addresses, whether or not they are reached */
};

/* In-flight regions that a front-end has handed out, one behind the other. */
struct vfn_inflight_given {
	struct vfn_map *map; /* NULL: none */
	uint16_t queues, entries;
	bool packed;
};

/* Of a ring that is to start: may it go on where librte_vhost says? */
enum vfn_ring_left {
	VFN_RING_KEPT,	  /* yes */
	VFN_RING_LEFT,	  /* its function ended; what that left in memory tells */
	VFN_RING_UNKNOWN, /* the same, and nothing tells */
};

/* A ring behind an IOMMU, see vfn_iommu.c. */
struct vfn_iova_ring {
	uint64_t desc, driver, device;
	uint16_t base; /* where it starts */
};

/* The IOMMU of the guest that has the device. */
struct vfn_iommu_guest {
	struct vfn_miss_call call;
	bool on;
	int fd; /* of the front-end's back channel */
	/* counters; the first two: atomic */
	uint64_t misses, unsent, updates, invalidations, refused;
};

/* A connection of a front-end, as far as librte_vhost has told of it. */
struct vfn_guest {
	TAILQ_ENTRY(vfn_guest) next;
	int vid;
	bool waits; /* for the device, which another one uses, its endpoint, or its file */
	bool conf;  /* librte_vhost takes it for configured: it says so before anything changes */
	bool wanted[VFN_MAX_QUEUES]; /* librte_vhost says the ring is ready */
	unsigned int unanswered;     /* doorbells whose answer was not waited for */
	bool features;		     /* are negotiated */
	uint64_t own_features;	     /* of which librte_vhost knows nothing, see vfn_ctrl.c */
	uint64_t own_asked;	     /* by the message that librte_vhost handles now */
	bool memory;	       /* librte_vhost took the last memory table, see vfn_message.c */
	bool told;	       /* the log says why the guest has no device */
	bool barred;	       /* librte_vhost has in-flight regions of it */
	bool resetting;	       /* dev_cleanup is not the connection's end */
	struct vfn_map *dirty; /* the last dirty log that it gave, NULL: none */
	struct vfn_inflight_given inflight;
	bool stopped[VFN_MAX_QUEUES]; /* in an orderly way, and where */
	uint16_t stopped_at[VFN_MAX_QUEUES];
	uint8_t left[VFN_MAX_QUEUES];		/* enum vfn_ring_left */
	struct vfn_map *region[VFN_MAX_QUEUES]; /* in-flight regions of ours, see vfn_inflight.c */
	int error_fd[VFN_MAX_QUEUES];		/* told of a broken ring, -1: none */
	int back_fd;				/* its back channel, -1: none */
	int8_t writeback;	    /* of a disk, as its driver has set it, -1: it has not */
	struct vfn_iova_ring *iova; /* its rings, NULL: none */
};

/* The thread that relays where no poller does, see vfn_shadow.c. */
struct vfn_shadow_thread {
	pthread_t id;
	bool runs, quit;
	bool must_poll; /* not everything that it waits for is an eventfd */
	int epoll_fd, wake_fd;
};

struct vfn_shadow;

/* The dirty log of the guest that migrates, see vfn_lm.c. */
struct vfn_dirty {
	bool wanted;			      /* LOG_ALL is negotiated */
	bool missed;			      /* for some of that time nothing was logged */
	bool on;			      /* the function logs */
	struct vfn_map *map;		      /* NULL: none */
	uint32_t starts, refusals, announced; /* counters */
};

/* What became of a queue's doorbell. */
enum vfn_doorbell {
	VFN_DOORBELL_OFF,
	VFN_DOORBELL_READY, /* to be offered */
	VFN_DOORBELL_OFFERED,
	VFN_DOORBELL_MAPPED,
	VFN_DOORBELL_REFUSED,
};

/* Doorbells that a guest rings by a plain store, see vfn_notify.c. */
struct vfn_notify {
	bool asked; /* by the device arguments */
	bool offer; /* to guests whose front-end can */
	uint64_t offset[VFN_MAX_QUEUES];
	int fd; /* -1: the guest has none */
	pthread_t thread;
	pthread_cond_t wake;
	/* Under a lock of vfn_notify.c. */
	int vid; /* -1: the guest has none */
	bool stop;
	bool asking; /* the thread waits for the front-end's answer */
	uint8_t state[VFN_MAX_QUEUES];
};

/* Parts of a function, see vfn_parts.h. */
struct vfn_saved {
	uint8_t *data; /* NULL: none */
	uint32_t len;
};

/* An in-flight region as it is mapped here, see vfn_inflight.c. */
struct vfn_inflight_region {
	struct vfn_map *map; /* NULL: none */
	uint8_t *host;	     /* of the region, in map */
	uint64_t len;
	bool own; /* in our file, not the front-end's */
};

struct vfn_inflight {
	int fd; /* of the file, -1: none */
	struct vfn_inflight_file *file;
	bool lost; /* it was cut off; set by a signal handler */
	struct vfn_inflight_region region[VFN_MAX_QUEUES];
};

/* A function in another process, see vfn_remote.c. */
struct vfn_remote {
	char path[108];
	bool ntb;     /* at the other side of a bridge */
	bool bridged; /* that has been there, and dev->pci.link is to it */
	uint32_t ntb_mb, ntb_us;
	bool by_host;
	struct vfn_endpoint_control control; /* by_host */
	pthread_t thread;
	bool watched; /* there is the thread */
	bool quit;    /* atomic: it is to end */
	int wake_fd;
	struct vfu_patience patience;
	/* Under the device's lock. */
	bool gone;	/* nobody is connected, and nothing is touched */
	bool released;	/* another process may have it */
	char why[192];	/* it is gone, or is not taken */
	uint32_t links; /* connections that there were */
};

struct vfn_dev {
	TAILQ_ENTRY(vfn_dev) next;
	uint64_t id;   /* grows from one in the list to the next */
	uint32_t refs; /* both: under the list's lock */
	char name[VFN_NAME_SIZE];
	enum vfn_lm lm;
	enum vfn_dma_mode dma;
	struct vfn_pool pool; /* VFN_DMA_BOUNCE */
	unsigned int faults;  /* enum vfn_fault, for those who log */
	const struct rte_device *device;
	struct rte_vdpa_device *vdpa;

	struct vfn_vpci pci;	       /* of the function; under the device's lock */
	struct vfn_function *function; /* for its operator; NULL: it is behind an endpoint */
	struct vfn_remote *remote;     /* NULL: it is in this process */
	const struct vfn_drv_class *class;
	uint16_t max_pairs; /* of the net class; of others queues */

	struct rte_intr_handle *config_intr;
	int config_fd; /* eventfd of configuration changes */

	pthread_mutex_t lock; /* protects what follows */
	enum vfn_state state;
	bool removed; /* takes no new connections */
	bool busy;    /* the last start failed as somebody else has what the function works on */
	TAILQ_HEAD(, vfn_guest) guests;
	struct vfn_guest *guest;      /* whose device it is, or NULL */
	bool started[VFN_MAX_QUEUES]; /* the function runs it */
	bool paused[VFN_MAX_QUEUES];  /* for as long as all queues are */
	struct vfn_memory memory;     /* from dev_conf to dev_close */
	struct vfn_iommu_guest iommu;
	struct vfn_shadow *shadow[VFN_MAX_QUEUES]; /* NULL: the function has the guest's ring */
	struct vfn_shadow *spare[VFN_MAX_QUEUES];  /* for a queue that will have one */
	struct vfn_shadow_thread shadow_thread;
	uint64_t shadow_calls_held; /* see vfn_shadow.h */
	struct vfn_dirty dirty;
	struct vfn_notify doorbells;
	struct vfn_saved last;	       /* as the last guest left them */
	struct vfn_saved pending;      /* for the next guest to find */
	struct vfn_saved said;	       /* by a control queue, see vfn_ctrl.c */
	struct vfn_saved answered;     /* the same, by windows: while the guest has the device */
	struct vfn_saved began;	       /* by windows: what restored[] is of */
	uint16_t ctrl;		       /* of the guest, if it is passed on; 0: it has none */
	bool restored[VFN_MAX_QUEUES]; /* by parts, and not started yet */
	int config_reader;	       /* vid that has last asked for the configuration, or -1 */
	uint8_t config_seen;	       /* its generation then */
	bool config_told;	       /* the front-end was, of a change, and has not asked since */
	bool config_telling;	       /* config_thread is to be joined */
	pthread_t config_thread;
	int config_vid; /* whom it tells */
	struct vfn_inflight inflight;
	uint32_t stops;
	uint32_t stop_us[2]; /* how long the function took to stand still: last, longest */
	uint64_t stats_base[VFN_MAX_QUEUES][VFN_STATS_MAX];
	uint64_t stats_last[VFN_MAX_QUEUES][VFN_STATS_MAX]; /* as they were read last */
	uint32_t failures_base[VFN_MAX_QUEUES];
	struct vfn_kernel *kernel; /* that the kernel's driver may have it, or NULL */
};

/* Queues for data. */
static inline unsigned int
vfn_nb_data(const struct vfn_dev *dev)
{
	return dev->class->rings * dev->max_pairs;
}

/* Rings that a front-end may set up: the one behind those for data may be the control queue. */
static inline unsigned int
vfn_nb_rings(const struct vfn_dev *dev)
{
	return vfn_nb_data(dev) + dev->class->has_ctrl;
}

extern struct rte_vdev_driver vfn_driver;

/* vfn_args.c: device arguments. 0 or -EINVAL with the key named in the log. */
int vfn_args_parse(const char *name, const char *text, struct vfn_args *args);
/* Each argument in force: as in text, else the one that stands for none. */
void vfn_args_show(
	const char *text, void (*show)(void *data, const char *key, const char *value), void *data);

/* vfn_life.c: the life cycle. dev->lock held. */
const char *vfn_state_name(enum vfn_state state);
int vfn_life_start(struct vfn_dev *dev, int vid);
void vfn_life_stop(struct vfn_dev *dev, int vid);
void vfn_life_forget(struct vfn_dev *dev, int vid);
void vfn_life_features(struct vfn_dev *dev, int vid);
void vfn_life_late(struct vfn_dev *dev, struct vfn_guest *guest);
int vfn_life_vring(struct vfn_dev *dev, int vid, uint16_t queue, bool on);
int vfn_life_connection(struct vfn_dev *dev, int vid);
void vfn_life_check(struct vfn_dev *dev);
void vfn_life_close(struct vfn_dev *dev);
void vfn_life_lost(struct vfn_dev *dev);
void vfn_life_back(struct vfn_dev *dev);
struct vfn_guest *vfn_life_guest(struct vfn_dev *dev, int vid);
int vfn_life_move(struct vfn_dev *dev, enum vfn_state to);

/* vfn_queue.c: queues. dev->lock held, a guest has the device. */
int vfn_queue_start(struct vfn_dev *dev, uint16_t queue);
int vfn_queue_stop(struct vfn_dev *dev, uint16_t queue);
int vfn_queues_stop(struct vfn_dev *dev);
void vfn_queues_leave(struct vfn_dev *dev);
int vfn_queues_pause(struct vfn_dev *dev);
void vfn_queues_resume(struct vfn_dev *dev);
void vfn_queues_error(struct vfn_dev *dev);

/* vfn_remote.c: a function in another process. The last two: dev->lock held. */
int vfn_remote_open(struct vfn_dev *dev, const struct vfn_args *args);
int vfn_remote_watch(struct vfn_dev *dev);
void vfn_remote_unwatch(struct vfn_dev *dev);
void vfn_remote_close(struct vfn_dev *dev);
bool vfn_remote_gone(const struct vfn_dev *dev);
uint64_t vfn_remote_lacks(const struct vfn_dev *dev, uint64_t features);
bool vfn_remote_dead(struct vfn_dev *dev);
void vfn_remote_check(struct vfn_dev *dev);
int vfn_remote_release(struct vfn_dev *dev);
void vfn_remote_reclaim(struct vfn_dev *dev);

/* vfn_ctrl.c: the control queue of a guest that passes it on. dev->lock held. */
uint64_t vfn_ctrl_offer(const struct vfn_dev *dev, uint64_t library);
int vfn_guest_features(const struct vfn_guest *guest, uint64_t *features);
uint64_t vfn_ctrl_features(struct vfn_dev *dev, uint64_t features);
static inline bool
vfn_ctrl_is(const struct vfn_dev *dev, uint16_t queue)
{
	return dev->ctrl != 0 && queue == dev->ctrl;
}
bool vfn_ctrl_can_start(const struct vfn_dev *dev, uint16_t queue);
uint16_t vfn_ctrl_queue(const struct vfn_dev *dev);
void vfn_ctrl_keep(struct vfn_dev *dev, const struct vfn_saved *parts);
void vfn_ctrl_take(struct vfn_dev *dev, const struct vfn_saved *parts);
void vfn_ctrl_forget(struct vfn_dev *dev);
bool vfn_ctrl_answer(struct vfn_dev *dev, uint16_t after);
void vfn_ctrl_lost(struct vfn_dev *dev);
bool vfn_ctrl_left(struct vfn_dev *dev);
bool vfn_ctrl_changes(struct vfn_dev *dev);
int vfn_ctrl_parts(struct vfn_dev *dev, const struct vfn_saved *restored, struct vfn_saved *to);

/* vfn_ring.c: a guest's ring. dev->lock held, a guest has the device. */
#define VFN_PACKED_START 0x8000 /* position of a ring that was never used */
int vfn_ring_get(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring);
bool vfn_ring_left(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring);
bool vfn_ring_catch_up(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring,
	uint64_t features, uint16_t front_end);
bool vfn_ring_fresh(const struct vfn_dev *dev, const struct vfn_vpci_ring *ring);
bool vfn_ring_used_idx(const struct vfn_dev *dev, const struct vfn_vpci_ring *ring, uint16_t *idx);

/* vfn_message.c: the messages of a connection. dev->lock held. */
int vfn_message_start(struct vfn_guest *guest);
void vfn_message_forgive(struct vfn_guest *guest);
bool vfn_message_memory(struct vfn_dev *dev, struct vfn_guest *guest);

/* vfn_config.c: changes of the device configuration. Start and stop: dev->lock held. */
int vfn_config_open(struct vfn_dev *dev);
void vfn_config_close(struct vfn_dev *dev);
void vfn_config_start(struct vfn_dev *dev);
void vfn_config_stop(struct vfn_dev *dev);
int vfn_config_read(struct vfn_dev *dev, struct virtio_net_config *config);
int vfn_config_get(struct vfn_dev *dev, int vid, uint8_t *config, uint32_t size);

/* vfn_inflight.c: crash recovery. dev->lock held, but for open and close. */
int vfn_inflight_open(struct vfn_dev *dev, const char *dir);
void vfn_inflight_close(struct vfn_dev *dev);
int vfn_inflight_create(struct vfn_dev *dev, const struct vfn_guest *guest, uint16_t queues,
	uint16_t entries, uint64_t *size);
int vfn_inflight_set(struct vfn_dev *dev, struct vfn_guest *guest, int fd, uint64_t offset,
	uint64_t len, uint16_t queues, uint16_t entries);
int vfn_inflight_attach(
	struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring, bool packed);
bool vfn_inflight_renew(
	struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring, uint16_t base);
void vfn_inflight_forget(struct vfn_dev *dev, uint16_t queue);
struct vfn_parts_said *vfn_inflight_control(
	struct vfn_dev *dev, struct vfn_vpci_ring *ring, bool packed);
void *vfn_inflight_host(struct vfn_dev *dev, uint16_t queue);
void vfn_inflight_release(struct vfn_dev *dev);

/* For the log: what may be reached. */
static inline const char *
vfn_memory_name(const struct vfn_dev *dev)
{
	return dev->dma == VFN_DMA_BOUNCE ? "the pool" : "the guest's memory";
}
/* vfn_memory.c: the guest's memory. dev->lock held; all but the first: a guest has the device. */
struct vfn_vu_msg;
void vfn_memory_ring(struct vfn_dev *dev, const struct vfn_guest *guest, struct vfn_vu_msg *msg);
int vfn_memory_open(struct vfn_dev *dev);
void vfn_memory_close(struct vfn_dev *dev);
bool vfn_memory_gpa(const struct vfn_dev *dev, const void *theirs, uint64_t *gpa);
const struct vfn_mem_region *vfn_memory_find(const struct vfn_dev *dev, uint64_t gpa, uint64_t len);
struct vringh_mem;
void vfn_memory_table(const struct vfn_memory *memory, struct vringh_mem *to);
void *vfn_memory_at(const struct vfn_dev *dev, uint64_t gpa, uint64_t len);

/* vfn_iommu.c: translated addresses. dev->lock held. */
uint64_t vfn_iommu_offer(const struct vfn_dev *dev);
bool vfn_iommu_is(const struct vfn_guest *guest);
int vfn_iommu_start(struct vfn_dev *dev, uint64_t features);
void vfn_iommu_stop(struct vfn_dev *dev, bool gone);
void vfn_iommu_back(struct vfn_dev *dev, struct vfn_guest *guest, int fd);
bool vfn_iommu_ring(struct vfn_dev *dev, struct vfn_guest *guest, struct vfn_vu_msg *msg);
void vfn_iommu_ring_get(const struct vfn_guest *guest, uint16_t queue, struct vfn_vpci_ring *ring);
void vfn_iommu_ring_stopped(struct vfn_guest *guest, uint16_t queue, uint16_t base);
int vfn_iommu_message(struct vfn_dev *dev, struct vfn_guest *guest, const struct vfn_vu_msg *msg);

/* vfn_lm.c: live migration. dev->lock held; all but the first: a guest has the device. */
int vfn_lm_set_dirty(
	struct vfn_dev *dev, struct vfn_guest *guest, int fd, uint64_t offset, uint64_t len);
void vfn_lm_update(struct vfn_dev *dev, uint64_t features);
void vfn_lm_queue_stopped(struct vfn_dev *dev, uint16_t queue, uint64_t logged);
void vfn_lm_stop(struct vfn_dev *dev);
void vfn_lm_release(struct vfn_dev *dev);
void vfn_lm_announce(struct vfn_dev *dev);

const char *vfn_lm_name(enum vfn_lm lm);

/* vfn_notify.c: doorbells. dev->lock held; the last three any thread. */
void vfn_notify_init(struct vfn_dev *dev, const struct vfn_args *args);
void vfn_notify_find(struct vfn_dev *dev);
void vfn_notify_start(struct vfn_dev *dev);
void vfn_notify_queue(struct vfn_dev *dev, uint16_t queue);
void vfn_notify_stop(struct vfn_dev *dev);
const char *vfn_notify_state(struct vfn_dev *dev, uint16_t queue);
int vfn_notify_fd(int vid);
int vfn_notify_area(int vid, int queue, uint64_t *offset, uint64_t *size);

/* vfn_saved.c: the parts of a device over its guests. dev->lock held. */
void vfn_saved_keep(struct vfn_dev *dev, bool exact);
void vfn_saved_apply(struct vfn_dev *dev, uint64_t features);
void vfn_saved_take_position(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring);
int vfn_saved_get(struct vfn_dev *dev, struct vfn_saved *kept);
struct vfn_part_vq_cfg;
struct vfn_part_vq_position;
bool vfn_saved_queue(const struct vfn_saved *kept, uint16_t queue, struct vfn_part_vq_cfg *cfg,
	struct vfn_part_vq_position *position);
void vfn_saved_put_ring(struct vfn_saved *kept, uint16_t queue, const struct vfn_vpci_ring *ring);
void vfn_saved_free(struct vfn_dev *dev);

/* vfn_shadow.c: shadow rings. dev->lock held, a guest has the device. */
bool vfn_shadow_by_windows(const struct vfn_dev *dev);
bool vfn_shadow_needed(const struct vfn_dev *dev);
int vfn_shadow_prepare(
	struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, uint64_t features);
void vfn_shadow_unprepare(struct vfn_dev *dev);
int vfn_shadow_start(
	struct vfn_dev *dev, uint16_t queue, const struct vfn_vpci_ring *ring, uint64_t features);
bool vfn_shadow_leave(struct vfn_dev *dev, uint16_t queue, struct vfn_vpci_ring *ring);
void vfn_shadow_spare(struct vfn_dev *dev, uint16_t queue);
int vfn_shadow_free(struct vfn_dev *dev, uint16_t queue);
int vfn_shadow_end_job(struct vfn_dev *dev, uint16_t queue);
void vfn_shadow_drop(struct vfn_dev *dev, uint16_t queue);
bool vfn_shadow_any_live(const struct vfn_dev *dev);
const struct vfn_vpci_ring *vfn_shadow_guest_ring(struct vfn_dev *dev, uint16_t queue);
/* vfn_window.c */
int vfn_window_map(struct vfn_dev *dev);
/* vfn_shadow_thread.c */
void vfn_shadow_pause(struct vfn_dev *dev);
void vfn_shadow_resume(struct vfn_dev *dev);
void vfn_shadow_stats(const struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_STATS_MAX]);

/* vfn_kernel.c: devices of the kernel's. The last but one: dev->lock held. */
const char *vfn_kernel_inflight(const struct vfn_args *args);
int vfn_kernel_init(struct vfn_dev *dev, const struct vfn_args *args);
bool vfn_kernel_config_changed(struct vfn_dev *dev);
void vfn_kernel_free(struct vfn_dev *dev);

/* vfn_stats.c: operations. */
unsigned int vfn_nb_stats(const struct vfn_dev *dev);
const char *vfn_stat_name(const struct vfn_dev *dev, unsigned int stat);
int vfn_stats_all(struct vfn_dev *dev, uint16_t queue, uint64_t value[VFN_STATS_MAX]);
void vfn_stats_go_on(struct vfn_dev *dev);
int vfn_stats_names(
	struct rte_vdpa_device *vdpa, struct rte_vdpa_stat_name *names, unsigned int size);
int vfn_stats_get(
	struct rte_vdpa_device *vdpa, int queue, struct rte_vdpa_stat *stats, unsigned int n);
int vfn_stats_reset(struct rte_vdpa_device *vdpa, int queue);

/* vfn_list.c: the devices, and who may lock what while what is held; any thread. */
void vfn_dev_add(struct vfn_dev *dev);
void vfn_dev_del(struct vfn_dev *dev);
struct vfn_dev *vfn_dev_get_by_vdpa(const struct rte_vdpa_device *vdpa);
struct vfn_dev *vfn_dev_get_by_vid(int vid);
struct vfn_dev *vfn_dev_get_next(struct vfn_dev *dev);
void vfn_dev_put(struct vfn_dev *dev);
void vfn_dev_lock(struct vfn_dev *dev);
bool vfn_dev_trylock(struct vfn_dev *dev);
void vfn_dev_unlock(struct vfn_dev *dev);
void vfn_dev_release(struct vfn_dev *dev);
struct vfn_dev *vfn_dev_lock_by_vid(int vid);
struct vfn_dev *vfn_dev_lock_by_name(const char *name);
void vfn_notify_lock(void);
void vfn_notify_unlock(void);
void vfn_notify_wait(pthread_cond_t *cond);

#endif /* VFN_DRV_H */
