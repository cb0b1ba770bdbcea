/* SPDX-License-Identifier: BSD-3-Clause
 * Copyright(c) 2026 the vfn authors
 */

/*
 * Included in front of every file of a variant (-include): gives each external name of
 * lib/vring the variant's own, so that several copies of the library link into one program. The
 * copies are linked whole: a name that is missing here is defined twice, and the link fails.
 */

#ifndef VARIANT_H
#define VARIANT_H

#define VARIANT_PASTE_(variant, name) variant##_##name
#define VARIANT_PASTE(variant, name)  VARIANT_PASTE_(variant, name)
#define VARIANT_NAME(name)	      VARIANT_PASTE(VARIANT, name)

#define vringh_accessors	 VARIANT_NAME(vringh_accessors)
#define vringh_avx2_packed	 VARIANT_NAME(vringh_avx2_packed)
#define vringh_avx2_packed_iotlb VARIANT_NAME(vringh_avx2_packed_iotlb)
#define vringh_avx2_split	 VARIANT_NAME(vringh_avx2_split)
#define vringh_avx2_split_iotlb	 VARIANT_NAME(vringh_avx2_split_iotlb)
#define vringh_avx2_used	 VARIANT_NAME(vringh_avx2_used)
#define vringh_clear_device	 VARIANT_NAME(vringh_clear_device)
#define vringh_complete		 VARIANT_NAME(vringh_complete)
#define vringh_copy		 VARIANT_NAME(vringh_copy)
#define vringh_count_bad	 VARIANT_NAME(vringh_count_bad)
#define vringh_dirty_area	 VARIANT_NAME(vringh_dirty_area)
#define vringh_dirty_chains	 VARIANT_NAME(vringh_dirty_chains)
#define vringh_dirty_used	 VARIANT_NAME(vringh_dirty_used)
#define vringh_discard		 VARIANT_NAME(vringh_discard)
#define vringh_fetch		 VARIANT_NAME(vringh_fetch)
#define vringh_get_state	 VARIANT_NAME(vringh_get_state)
#define vringh_inflight_after	 VARIANT_NAME(vringh_inflight_after)
#define vringh_inflight_before	 VARIANT_NAME(vringh_inflight_before)
#define vringh_inflight_desc	 VARIANT_NAME(vringh_inflight_desc)
#define vringh_inflight_discard	 VARIANT_NAME(vringh_inflight_discard)
#define vringh_inflight_fetch	 VARIANT_NAME(vringh_inflight_fetch)
#define vringh_inflight_size	 VARIANT_NAME(vringh_inflight_size)
#define vringh_init		 VARIANT_NAME(vringh_init)
#define vringh_io_read		 VARIANT_NAME(vringh_io_read)
#define vringh_io_write		 VARIANT_NAME(vringh_io_write)
#define vringh_iotlb_map	 VARIANT_NAME(vringh_iotlb_map)
#define vringh_iotlb_unmap	 VARIANT_NAME(vringh_iotlb_unmap)
#define vringh_mem_find		 VARIANT_NAME(vringh_mem_find)
#define vringh_need_notify	 VARIANT_NAME(vringh_need_notify)
#define vringh_notify_disable	 VARIANT_NAME(vringh_notify_disable)
#define vringh_notify_enable	 VARIANT_NAME(vringh_notify_enable)
#define vringh_packed_ops	 VARIANT_NAME(vringh_packed_ops)
#define vringh_pending_special	 VARIANT_NAME(vringh_pending_special)
#define vringh_plain_accessors	 VARIANT_NAME(vringh_plain_accessors)
#define vringh_pull_pieces	 VARIANT_NAME(vringh_pull_pieces)
#define vringh_push_pieces	 VARIANT_NAME(vringh_push_pieces)
#define vringh_refuse_miss	 VARIANT_NAME(vringh_refuse_miss)
#define vringh_rewind		 VARIANT_NAME(vringh_rewind)
#define vringh_set_dirty_log	 VARIANT_NAME(vringh_set_dirty_log)
#define vringh_set_inflight	 VARIANT_NAME(vringh_set_inflight)
#define vringh_set_mem		 VARIANT_NAME(vringh_set_mem)
#define vringh_split_ops	 VARIANT_NAME(vringh_split_ops)
#define vringh_strerror		 VARIANT_NAME(vringh_strerror)
#define vringh_watch		 VARIANT_NAME(vringh_watch)

#endif /* VARIANT_H */
