/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/**
 * @file
 * Messages of vfio-user, a protocol for a PCI device that lives in another process ("vfio-user
 * Protocol Specification", version 0.1). Named sections are of that text; what it takes from VFIO
 * is in <linux/vfio.h>. Everything is in the host's byte order (Protocol Specification).
 */

#ifndef VFU_PROTO_H
#define VFU_PROTO_H

#include <stdint.h>

#include <linux/vfio.h>

#define VFU_MAJOR 0
#define VFU_MINOR 1

/** Limits of this implementation, told to the peer in VFIO_USER_VERSION. */
#define VFU_MAX_FDS  16	       /**< Descriptors in a message ("max_msg_fds"). */
#define VFU_MAX_XFER 0x100000u /**< Bytes of data in a message ("max_data_xfer_size"). */
#define VFU_MAX_MAPS 4096u     /**< DMA maps at a time ("max_dma_maps"). */
#define VFU_PGSIZES  4096u     /**< Of DMA maps ("pgsizes"). */

/** What a peer may say that tells nothing ("Version"). */
#define VFU_DEFAULT_FDS	 1u
#define VFU_DEFAULT_XFER 0x100000u
#define VFU_DEFAULT_MAPS 65535u

/** Commands ("Commands"). */
enum vfu_command {
	VFU_VERSION = 1,
	VFU_DMA_MAP = 2,
	VFU_DMA_UNMAP = 3,
	VFU_DEVICE_GET_INFO = 4,
	VFU_DEVICE_GET_REGION_INFO = 5,
	VFU_DEVICE_GET_REGION_IO_FDS = 6,
	VFU_DEVICE_GET_IRQ_INFO = 7,
	VFU_DEVICE_SET_IRQS = 8,
	VFU_REGION_READ = 9,
	VFU_REGION_WRITE = 10,
	VFU_DMA_READ = 11,  /**< Server to client. */
	VFU_DMA_WRITE = 12, /**< Server to client. */
	VFU_DEVICE_RESET = 13,
	VFU_REGION_WRITE_MULTI = 15,
	VFU_DEVICE_FEATURE = 16,
	VFU_MIG_DATA_READ = 17,
	VFU_MIG_DATA_WRITE = 18,
	VFU_COMMAND_MAX
};

/** Of vfu_header.flags ("Header"). */
#define VFU_TYPE_MASK	 0xfu
#define VFU_TYPE_COMMAND 0x0u
#define VFU_TYPE_REPLY	 0x1u
#define VFU_NO_REPLY	 0x10u
#define VFU_ERROR	 0x20u

/** What every message begins with ("Header"). */
struct vfu_header {
	uint16_t id;
	uint16_t command;
	uint32_t size; /**< Of the message, with this. */
	uint32_t flags;
	uint32_t error; /**< An errno value, in a reply with VFU_ERROR. */
};
_Static_assert(sizeof(struct vfu_header) == 16, "Header");

/** VFIO_USER_VERSION; JSON with its NUL may follow. */
struct vfu_version {
	uint16_t major;
	uint16_t minor;
};

/** VFIO_USER_DMA_MAP; one descriptor, if the memory can be mapped. */
struct vfu_dma_map {
	uint32_t argsz;
	uint32_t flags; /**< VFIO_DMA_MAP_FLAG_READ, _WRITE. */
	uint64_t offset;
	uint64_t address;
	uint64_t size;
};
_Static_assert(sizeof(struct vfu_dma_map) == 32, "VFIO_USER_DMA_MAP");

/** VFIO_USER_DMA_UNMAP. */
struct vfu_dma_unmap {
	uint32_t argsz;
	uint32_t flags; /**< 0, or VFIO_DMA_UNMAP_FLAG_ALL with address and size 0. */
	uint64_t address;
	uint64_t size;
};
_Static_assert(sizeof(struct vfu_dma_unmap) == 24, "VFIO_USER_DMA_UNMAP");

/** VFIO_USER_DEVICE_GET_INFO. */
struct vfu_device_info {
	uint32_t argsz;
	uint32_t flags; /**< VFIO_DEVICE_FLAGS_RESET, _PCI. */
	uint32_t num_regions;
	uint32_t num_irqs;
};

/**
 * Of a reply to VFIO_USER_DEVICE_GET_REGION_INFO ("VFIO sparse mmap cap header"), the fixed part of
 * struct vfio_region_info_cap_sparse_mmap; areas follow.
 */
struct vfu_sparse_cap {
	struct vfio_info_cap_header header;
	uint32_t nr_areas;
	uint32_t reserved;
};
_Static_assert(sizeof(struct vfu_sparse_cap) == 16, "VFIO sparse mmap cap header");

/** VFIO_USER_DEVICE_GET_REGION_IO_FDS; in a reply vfu_io_fd follow. */
struct vfu_region_io_fds {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

#define VFU_IO_FD_TYPE_IOEVENTFD 0u

/** Sub-region of it with an ioeventfd. */
struct vfu_io_fd {
	uint64_t offset;
	uint64_t size;
	uint32_t fd_index;
	uint32_t type;
	uint32_t flags;
	uint32_t padding;
	uint64_t datamatch;
};
_Static_assert(sizeof(struct vfu_io_fd) == 40, "Sub-Region IO FD info format");

/** VFIO_USER_DEVICE_GET_IRQ_INFO. */
struct vfu_irq_info {
	uint32_t argsz;
	uint32_t flags; /**< VFIO_IRQ_INFO_*. */
	uint32_t index;
	uint32_t count;
};

/** VFIO_USER_DEVICE_SET_IRQS; booleans may follow. */
struct vfu_irq_set {
	uint32_t argsz;
	uint32_t flags; /**< VFIO_IRQ_SET_*. */
	uint32_t index;
	uint32_t start;
	uint32_t count;
};
_Static_assert(sizeof(struct vfu_irq_set) == 20, "VFIO_USER_DEVICE_SET_IRQS");

/** VFIO_USER_REGION_READ, _WRITE; data follow in a reply, or a request. */
struct vfu_region_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
};

/** VFIO_USER_DMA_READ, _WRITE; data follow in a reply, or a request. */
struct vfu_dma_access {
	uint64_t address;
	uint64_t count;
};

/** VFIO_USER_REGION_WRITE_MULTI: a count of 64 bits, and as many of these. */
struct vfu_region_write {
	uint64_t offset;
	uint32_t region;
	uint32_t count; /**< Up to 8. */
	uint8_t data[8];
};

/** VFIO_USER_DEVICE_FEATURE; the feature's data follow. */
struct vfu_feature {
	uint32_t argsz;
	uint32_t flags; /**< VFIO_DEVICE_FEATURE_*. */
};

/** VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE. */
struct vfu_mig_state {
	uint32_t device_state;
	uint32_t data_fd;
};

/** VFIO_DEVICE_FEATURE_DMA_LOGGING_START; ranges follow. */
struct vfu_log_control {
	uint64_t page_size;
	uint32_t num_ranges;
	uint32_t reserved;
};

struct vfu_log_range {
	uint64_t iova;
	uint64_t length;
};

/** VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT; in a reply the bitmap follows. */
struct vfu_log_report {
	uint64_t iova;
	uint64_t length;
	uint64_t page_size;
};

/** VFIO_USER_MIG_DATA_READ, _WRITE; data follow in a reply, or a request. */
struct vfu_mig_data {
	uint32_t argsz;
	uint32_t size;
};

#endif /* VFU_PROTO_H */
