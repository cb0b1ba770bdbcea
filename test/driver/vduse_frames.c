/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/* Frames through a device whose kernel is played, see vduse_play.h. */

#include <sys/eventfd.h>

#include "vduse_play.h"

void
play_kick(uint32_t queue)
{
	if (mock_should_kick(&play.q[queue].drv) && play.q[queue].kick_fd >= 0)
		eventfd_write(play.q[queue].kick_fd, 1);
}

bool
play_used(uint32_t queue, struct mock_used *used, unsigned int ms)
{
	struct mock_driver *drv = &play.q[queue].drv;
	uint64_t end_ms = now_ms() + ms;
	int n;

	while (!mock_has_used(drv)) {
		if (now_ms() > end_ms)
			return false;
		nap_us(20);
	}
	n = mock_collect(drv, used, 1);
	if (n != 1)
		fail_msg("queue %u: %s", queue, drv->fault);
	return true;
}

/* A header of zeroes, and bytes that tell the number. */
void
play_prepare(unsigned int number)
{
	struct mock_buf buf = {.len = HDR_LEN + FRAME_LEN};
	struct mock_driver *drv = &play.q[1].drv;
	uint8_t frame[HDR_LEN + FRAME_LEN] = {0};
	int id = mock_post(drv, &buf, 1, 0, number);

	assert_true(id >= 0);
	memset(frame + HDR_LEN, 0x02, 12);
	memset(frame + HDR_LEN + 14, number, FRAME_LEN - 14);
	mock_mem_write(&play.mem, mock_buf_addr(drv, id, 0), frame, sizeof(frame));
}

void
play_send(unsigned int number)
{
	play_prepare(number);
	mock_publish(&play.q[1].drv);
	play_kick(1);
}

void
play_receive(unsigned int number)
{
	uint8_t frame[HDR_LEN + FRAME_LEN];
	struct mock_used used;

	if (!play_used(0, &used, PATIENCE_MS))
		fail_msg("frame %u does not come back", number);
	assert_int_equal(used.len, sizeof(frame));
	mock_mem_read(&play.mem, mock_buf_addr(&play.q[0].drv, used.id, 0), frame, sizeof(frame));
	assert_int_equal(frame[sizeof(frame) - 1], (uint8_t)number);
}

void
play_frames(unsigned int n)
{
	struct mock_buf buf = {.len = 2048, .write = true};
	struct mock_used used;
	unsigned int i;

	for (i = 0; i < n; i++) {
		assert_true(mock_post(&play.q[0].drv, &buf, 1, 0, i) >= 0);
		mock_publish(&play.q[0].drv);
		play_kick(0);
		play_send(i);
		play_receive(i);
		assert_true(play_used(1, &used, PATIENCE_MS));
	}
}

struct vfn_vduse_info
play_info(void)
{
	struct vfn_vduse_info now;

	pthread_mutex_lock(&play.pci_lock);
	vfn_vduse_info(play.vduse, &now);
	pthread_mutex_unlock(&play.pci_lock);
	return now;
}

uint64_t
play_stat(uint16_t queue, unsigned int which)
{
	uint64_t stats[VFN_NET_STAT_MAX];

	pthread_mutex_lock(&play.pci_lock);
	assert_int_equal(vfn_vpci_stats(&play.pci, queue, stats, VFN_NET_STAT_MAX), 0);
	pthread_mutex_unlock(&play.pci_lock);
	return stats[which];
}

void
play_clear(void)
{
	while (play.mem.nb_regions > 0)
		play_unmap(play.mem.region[0].iova);
	mock_free(&play.q[0].drv);
	mock_free(&play.q[1].drv);
	play.q[0].drv = play.q[1].drv = (struct mock_driver){0};
}

void
play_still_works(void)
{
	assert_int_equal(play_status(0), VDUSE_REQ_RESULT_OK);
	play_clear();
	play.nb_lies = 0;
	play_start(false, true);
	play_frames(20);
}
