/* SPDX-License-Identifier: BSD-3-Clause
 *
 * The table of gate_proto.h. Sizes are the protocol's; where stock front-ends send less or more
 * the row says who.
 */

#include <stddef.h>

#include "gate_proto.h"

#define NEW	 GATE_ANY
#define FEATURES GATE_FROM(GATE_PHASE_FEATURES)
#define MEMORY	 GATE_FROM(GATE_PHASE_MEMORY)
#define NEVER	 GATE_NEVER

#define ROW(name_, min_, max_, fds_min_, fds_max_, reply_, feature_, ring_, fate_, phases_) \
	[GATE_##name_] = {#name_, min_, max_, fds_min_, fds_max_, GATE_REPLY_##reply_, \
		GATE_PF_##feature_, GATE_RING_##ring_, GATE_FATE_##fate_, phases_}

/* clang-format off */
static const struct gate_proto table[GATE_NB_REQUESTS] = {
	/*  name                  payload   fds   reply  feature             ring   fate      phases */
	ROW(GET_FEATURES,           0,   0, 0, 0, OWN,   NONE,               NONE,  ANSWERED, NEW),
	ROW(SET_FEATURES,           8,   8, 0, 0, NONE,  NONE,               NONE,  PASSED,   NEW),
	ROW(SET_OWNER,              0,   0, 0, 0, NONE,  NONE,               NONE,  PASSED,   NEW),
	ROW(RESET_OWNER,            0,   0, 0, 0, NONE,  NONE,               NONE,  PASSED,   NEW),
	/* User-mode Linux sends room for two regions whether it has one or two. */
	ROW(SET_MEM_TABLE,         40, 264, 1, 8, NONE,  NONE,               NONE,  PASSED,   FEATURES),
	ROW(SET_LOG_BASE,          16,  16, 1, 1, SHMFD, LOG_SHMFD,          NONE,  PASSED,   FEATURES),
	/* Nobody writes the dirty log's eventfd: it is taken, and closed. */
	ROW(SET_LOG_FD,             0,   8, 1, 1, NONE,  NONE,               NONE,  ANSWERED, FEATURES),
	ROW(SET_VRING_NUM,          8,   8, 0, 0, NONE,  NONE,               STATE, PASSED,   NEW),
	ROW(SET_VRING_ADDR,        40,  40, 0, 0, NONE,  NONE,               STATE, PASSED,   MEMORY),
	ROW(SET_VRING_BASE,         8,   8, 0, 0, NONE,  NONE,               STATE, PASSED,   NEW),
	ROW(GET_VRING_BASE,         8,   8, 0, 0, OWN,   NONE,               STATE, PASSED,   NEW),
	ROW(SET_VRING_KICK,         8,   8, 0, 1, NONE,  NONE,               FILE,  PASSED,   MEMORY),
	/* QEMU and virtio-user set these two before they have decided on features. */
	ROW(SET_VRING_CALL,         8,   8, 0, 1, NONE,  NONE,               FILE,  PASSED,   NEW),
	ROW(SET_VRING_ERR,          8,   8, 0, 1, NONE,  NONE,               FILE,  PASSED,   NEW),
	ROW(GET_PROTOCOL_FEATURES,  0,   0, 0, 0, OWN,   NONE,               NONE,  ANSWERED, NEW),
	ROW(SET_PROTOCOL_FEATURES,  8,   8, 0, 0, NONE,  NONE,               NONE,  PASSED,   NEW),
	ROW(GET_QUEUE_NUM,          0,   0, 0, 0, OWN,   MQ,                 NONE,  ANSWERED, NEW),
	ROW(SET_VRING_ENABLE,       8,   8, 0, 0, NONE,  NONE,               STATE, PASSED,   NEW),
	/* QEMU announces a guest that has migrated before it starts the device. */
	ROW(SEND_RARP,              8,   8, 0, 0, NONE,  RARP,               NONE,  PASSED,   NEW),
	ROW(NET_SET_MTU,            8,   8, 0, 0, NONE,  MTU,                NONE,  PASSED,   NEW),
	/* QEMU sends it without a payload, others with an empty one. */
	ROW(SET_BACKEND_REQ_FD,     0,   8, 1, 1, NONE,  BACKEND_REQ,        NONE,  PASSED,   NEW),
	/* 26 bytes by the text, 32 as the C structure of QEMU. */
	ROW(IOTLB_MSG,             26,  32, 0, 0, NONE,  NONE,               NONE,  PASSED,   MEMORY),
	ROW(SET_VRING_ENDIAN,       8,   8, 0, 0, NONE,  CROSS_ENDIAN,       STATE, REFUSED,  NEVER),
	ROW(GET_CONFIG,            12, 268, 0, 0, OWN,   CONFIG,             NONE,  PASSED,   NEW),
	ROW(SET_CONFIG,            12, 268, 0, 0, NONE,  CONFIG,             NONE,  PASSED,   NEW),
	ROW(CREATE_CRYPTO_SESSION,  8, 268, 0, 0, OWN,   CRYPTO_SESSION,     NONE,  REFUSED,  NEVER),
	ROW(CLOSE_CRYPTO_SESSION,   8,   8, 0, 0, NONE,  CRYPTO_SESSION,     NONE,  REFUSED,  NEVER),
	ROW(POSTCOPY_ADVISE,        0,   0, 0, 0, OWN,   PAGEFAULT,          NONE,  REFUSED,  NEVER),
	ROW(POSTCOPY_LISTEN,        0,   0, 0, 0, NONE,  PAGEFAULT,          NONE,  REFUSED,  NEVER),
	ROW(POSTCOPY_END,           0,   0, 0, 0, OWN,   PAGEFAULT,          NONE,  REFUSED,  NEVER),
	/* 20 bytes by the text, 24 as the C structure of QEMU and librte_vhost. */
	ROW(GET_INFLIGHT_FD,       20,  24, 0, 0, OWN,   INFLIGHT_SHMFD,     NONE,  PASSED,   FEATURES),
	ROW(SET_INFLIGHT_FD,       20,  24, 1, 1, NONE,  INFLIGHT_SHMFD,     NONE,  PASSED,   FEATURES),
	ROW(GPU_SET_SOCKET,         0,   8, 1, 1, NONE,  NONE,               NONE,  REFUSED,  NEVER),
	ROW(RESET_DEVICE,           0,   0, 0, 0, NONE,  RESET_DEVICE,       NONE,  REFUSED,  NEVER),
	ROW(VRING_KICK,             8,   8, 0, 0, NONE,  INBAND_NOTIFICATIONS, STATE, REFUSED, NEVER),
	ROW(GET_MAX_MEM_SLOTS,      0,   0, 0, 0, OWN,   CONFIGURE_MEM_SLOTS, NONE, ANSWERED, NEW),
	ROW(ADD_MEM_REG,           40,  40, 1, 1, NONE,  CONFIGURE_MEM_SLOTS, NONE, PASSED,   FEATURES),
	/* Some send the region's descriptor along. */
	ROW(REM_MEM_REG,           40,  40, 0, 1, NONE,  CONFIGURE_MEM_SLOTS, NONE, PASSED,   MEMORY),
	ROW(SET_STATUS,             8,   8, 0, 0, NONE,  STATUS,             NONE,  PASSED,   NEW),
	ROW(GET_STATUS,             0,   0, 0, 0, OWN,   STATUS,             NONE,  PASSED,   NEW),
	ROW(GET_SHARED_OBJECT,     16,  16, 0, 0, OWN,   SHARED_OBJECT,      NONE,  REFUSED,  NEVER),
	ROW(SET_DEVICE_STATE_FD,    8,   8, 1, 1, OWN,   DEVICE_STATE,       NONE,  REFUSED,  NEVER),
	ROW(CHECK_DEVICE_STATE,     0,   0, 0, 0, OWN,   DEVICE_STATE,       NONE,  REFUSED,  NEVER),
};
/* clang-format on */

const struct gate_proto *
gate_proto(uint32_t request)
{
	return request < GATE_NB_REQUESTS && table[request].name != NULL ? &table[request] : NULL;
}

const char *
gate_proto_name(uint32_t request)
{
	const struct gate_proto *row = gate_proto(request);

	return row != NULL ? row->name : "an unknown request";
}
