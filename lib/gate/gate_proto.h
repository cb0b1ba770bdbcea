/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The vhost-user protocol as one table: what each request of a front-end looks like, and when it
 * may come. Constant data, read on any thread. All that is known of a request before its values
 * are looked at is here, and nowhere else: the reader of messages, the judge and the isolation
 * tests (test/isolation) go by it.
 */

#ifndef GATE_PROTO_H
#define GATE_PROTO_H

#include <stdbool.h>
#include <stdint.h>

/* vhost-user protocol, "Header" */
#define GATE_HEADER_SIZE   12
#define GATE_VERSION	   0x1
#define GATE_VERSION_MASK  0x3
#define GATE_REPLY	   0x4
#define GATE_NEED_REPLY	   0x8
#define GATE_FLAGS_KNOWN   (GATE_VERSION_MASK | GATE_REPLY | GATE_NEED_REPLY)
#define GATE_NO_FD	   0x100 /**< beside the ring in the payload of kick, call and err */
#define GATE_RING_MASK	   0xff	 /**< of the ring in the same payloads */
#define GATE_MAX_REGIONS   8	 /**< of a memory table; the protocol's own limit */
#define GATE_MAX_FDS	   GATE_MAX_REGIONS
#define GATE_CONFIG_HEAD   12
#define GATE_CONFIG_SIZE   256
#define GATE_RING_SIZE_MAX 32768
#define GATE_MAX_RINGS	   256 /**< a ring number has 8 bits in some messages */

/** Largest payload of any request that is taken: GET_CONFIG's or SET_CONFIG's. */
#define GATE_PAYLOAD_MAX (GATE_CONFIG_HEAD + GATE_CONFIG_SIZE)

/** Protocol features ("Protocol features") by their bit. */
enum gate_protocol_feature {
	GATE_PF_MQ = 0,
	GATE_PF_LOG_SHMFD = 1,
	GATE_PF_RARP = 2,
	GATE_PF_REPLY_ACK = 3,
	GATE_PF_MTU = 4,
	GATE_PF_BACKEND_REQ = 5,
	GATE_PF_CROSS_ENDIAN = 6,
	GATE_PF_CRYPTO_SESSION = 7,
	GATE_PF_PAGEFAULT = 8,
	GATE_PF_CONFIG = 9,
	GATE_PF_BACKEND_SEND_FD = 10,
	GATE_PF_HOST_NOTIFIER = 11,
	GATE_PF_INFLIGHT_SHMFD = 12,
	GATE_PF_RESET_DEVICE = 13,
	GATE_PF_INBAND_NOTIFICATIONS = 14,
	GATE_PF_CONFIGURE_MEM_SLOTS = 15,
	GATE_PF_STATUS = 16,
	GATE_PF_XEN_MMAP = 17,
	GATE_PF_SHARED_OBJECT = 18,
	GATE_PF_DEVICE_STATE = 19,
	GATE_PF_NONE = 64, /**< always there */
};

/** Device features that the protocol itself goes by (virtio 1.3, 6 and 7.2). */
#define GATE_F_LOG_ALL		 26
#define GATE_F_EVENT_IDX	 29
#define GATE_F_PROTOCOL_FEATURES 30
#define GATE_F_VERSION_1	 32
#define GATE_F_ACCESS_PLATFORM	 33
#define GATE_F_RING_PACKED	 34

/** Front-end message types. */
enum gate_request {
	GATE_GET_FEATURES = 1,
	GATE_SET_FEATURES = 2,
	GATE_SET_OWNER = 3,
	GATE_RESET_OWNER = 4,
	GATE_SET_MEM_TABLE = 5,
	GATE_SET_LOG_BASE = 6,
	GATE_SET_LOG_FD = 7,
	GATE_SET_VRING_NUM = 8,
	GATE_SET_VRING_ADDR = 9,
	GATE_SET_VRING_BASE = 10,
	GATE_GET_VRING_BASE = 11,
	GATE_SET_VRING_KICK = 12,
	GATE_SET_VRING_CALL = 13,
	GATE_SET_VRING_ERR = 14,
	GATE_GET_PROTOCOL_FEATURES = 15,
	GATE_SET_PROTOCOL_FEATURES = 16,
	GATE_GET_QUEUE_NUM = 17,
	GATE_SET_VRING_ENABLE = 18,
	GATE_SEND_RARP = 19,
	GATE_NET_SET_MTU = 20,
	GATE_SET_BACKEND_REQ_FD = 21,
	GATE_IOTLB_MSG = 22,
	GATE_SET_VRING_ENDIAN = 23,
	GATE_GET_CONFIG = 24,
	GATE_SET_CONFIG = 25,
	GATE_CREATE_CRYPTO_SESSION = 26,
	GATE_CLOSE_CRYPTO_SESSION = 27,
	GATE_POSTCOPY_ADVISE = 28,
	GATE_POSTCOPY_LISTEN = 29,
	GATE_POSTCOPY_END = 30,
	GATE_GET_INFLIGHT_FD = 31,
	GATE_SET_INFLIGHT_FD = 32,
	GATE_GPU_SET_SOCKET = 33,
	GATE_RESET_DEVICE = 34,
	GATE_VRING_KICK = 35,
	GATE_GET_MAX_MEM_SLOTS = 36,
	GATE_ADD_MEM_REG = 37,
	GATE_REM_MEM_REG = 38,
	GATE_SET_STATUS = 39,
	GATE_GET_STATUS = 40,
	GATE_GET_SHARED_OBJECT = 41,
	GATE_SET_DEVICE_STATE_FD = 42,
	GATE_CHECK_DEVICE_STATE = 43,
	GATE_NB_REQUESTS = 44, /**< one more than the last */
};

/** Back-end message types. */
enum gate_back_request {
	GATE_BACK_IOTLB_MSG = 1,
	GATE_BACK_CONFIG_CHANGE = 2,
	GATE_BACK_VRING_HOST_NOTIFIER = 3,
};

/** What an IOTLB message says ("IOTLB message"). */
enum gate_iotlb {
	GATE_IOTLB_MISS = 1,
	GATE_IOTLB_UPDATE = 2,
	GATE_IOTLB_INVALIDATE = 3,
	GATE_IOTLB_ACCESS_FAIL = 4,
};

/** What a request is answered with. */
enum gate_reply {
	GATE_REPLY_NONE,  /**< nothing; an acknowledgement if that is asked for */
	GATE_REPLY_OWN,	  /**< an answer of its own, in any case */
	GATE_REPLY_SHMFD, /**< one of its own if the feature of the row was negotiated, else NONE;
			   *   librte_vhost always gives it */
};

/** How a payload says which ring is meant. */
enum gate_ring {
	GATE_RING_NONE,
	GATE_RING_STATE, /**< a 32-bit number first */
	GATE_RING_FILE,	 /**< 64 bits: a number below 256, and GATE_NO_FD */
};

/** What becomes of a request that nothing is wrong with. */
enum gate_fate {
	GATE_FATE_REFUSED,  /**< never taken: not offered, nor needed by anybody who is served */
	GATE_FATE_ANSWERED, /**< by the gate; the library does not hear of it */
	GATE_FATE_PASSED,   /**< goes on to the library */
};

/** Where a connection stands; each includes those before it. */
enum gate_phase {
	GATE_PHASE_NEW,	     /**< nothing accepted yet */
	GATE_PHASE_FEATURES, /**< SET_FEATURES was accepted */
	GATE_PHASE_MEMORY,   /**< and there is a memory table */
	GATE_PHASE_RUNNING,  /**< and a ring was started: it has a kick */
	GATE_NB_PHASES,
};

/** Phases as bits. */
#define GATE_IN(phase)	 (1u << (phase))
#define GATE_ANY	 (GATE_IN(GATE_NB_PHASES) - 1)
#define GATE_FROM(phase) (GATE_ANY & ~(GATE_IN(phase) - 1))
#define GATE_NEVER	 0u

/** One request. */
struct gate_proto {
	const char *name;  /**< NULL: there is no such request */
	uint16_t size_min; /**< of the payload */
	uint16_t size_max;
	uint8_t fds_min;
	uint8_t fds_max;
	uint8_t reply;	 /**< enum gate_reply */
	uint8_t feature; /**< that must be negotiated: enum gate_protocol_feature */
	uint8_t ring;	 /**< enum gate_ring */
	uint8_t fate;	 /**< enum gate_fate */
	uint8_t phases;	 /**< in which it may come: bits GATE_IN() */
};

/**
 * The row of a request.
 *
 * @return
 *   NULL if there is no such request.
 */
const struct gate_proto *gate_proto(uint32_t request);

/** Name of a request for people; "an unknown request" if there is none. */
const char *gate_proto_name(uint32_t request);

#endif /* GATE_PROTO_H */
