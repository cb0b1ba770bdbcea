# SPDX-License-Identifier: BSD-3-Clause
"""Faults of a function, as text that becomes other text in one of its files, and the checks that are
there for them; test_controls.py sees that these fail. So no check is one that could not.
"""

import dataclasses

COMMON, IRQ, PCI, QUEUE = (f"lib/function/{n}.c" for n in ("common", "irq", "pci", "queue"))
DOORBELL, LOST, PARTS, PARTS_SET = (
    f"lib/function/{n}.c" for n in ("doorbell", "lost", "parts", "parts_set"))
FEATURES = "lib/function/class/net/features.c"
NOTIFY, SPLIT, PACKED = (f"lib/vring/vringh_{n}.c" for n in ("notify", "split", "packed"))


@dataclasses.dataclass(frozen=True)
class Control:
    """One fault more."""
    name: str
    file: str
    changes: tuple      # of (old, new)
    checks: tuple

    def apply(self, text):
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self.name}: {text.count(old)} places in {self.file} for {old!r}")
            text = text.replace(old, new)
        return text


def fault(name, file, old, new, *checks):
    return Control(name, file, ((old, new),), checks)


def faults(name, file, changes, *checks):
    return Control(name, file, changes, checks)


CONTROLS = (
    # status, features, reset
    fault("live without FEATURES_OK", COMMON,
          "(status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK)", "0",
          "driver_ok_needs_features_ok"),
    fault("live with features that are refused", COMMON,
          "(status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK)",
          "(status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK) &&\n"
          "\t\tregs->driver_features == 0", "driver_ok_needs_features_ok"),
    fault("status keeps a bit over a reset", COMMON, "memset(regs, 0, offsetof(struct vfn_regs, queue));",
          "uint8_t had = regs->status;\n\tmemset(regs, 0, offsetof(struct vfn_regs, queue));\n"
          "\tregs->status = had & 128;",
          "status_starts_as_0_and_keeps_its_bits"),
    fault("active before DRIVER_OK", QUEUE,
          "(q->fn->regs.status & (VIRTIO_CONFIG_S_DRIVER_OK | VIRTIO_CONFIG_S_NEEDS_RESET)) ==\n"
          "\t\tVIRTIO_CONFIG_S_DRIVER_OK &&", "q->fn->regs.status != 0 &&",
          "nothing_moves_before_driver_ok"),
    faults("a reset that only says so", COMMON,
           (("\tif (status == 0) {\n", "\tif (status == 0) {\n\t\tfn->irq_told = true;\n\t\treturn;\n"),
            ("\t/* Bits are never cleared but by a reset (2.1.1). */\n", "\tfn->irq_told = false;\n"),
            (".device_status = regs->status,", ".device_status = fn->irq_told ? 0 : regs->status,")),
           "reset_ends_everything"),
    fault("features that were not offered", COMMON, "if (unknown != 0)", "if (0)",
          "features_are_refused_not_ignored"),
    fault("features without what they need", COMMON, "else if (missing != 0)", "else if (0)",
          "features_are_refused_not_ignored"),
    fault("some features are refused", COMMON, "else if (missing != 0)",
          "else if (missing != 0 || (regs->driver_features & 0x28) == 0x28)",
          "subsets_are_taken_again_and_again"),
    fault("features change after FEATURES_OK", COMMON,
          "if (regs->driver_feature_select < 2 &&\n"
          "\t\t\t!(regs->status & VIRTIO_CONFIG_S_FEATURES_OK))", "if (regs->driver_feature_select < 2)",
          "features_are_fixed_by_features_ok"),
    fault("the words of features repeat", COMMON, "if (regs->device_feature_select < 2)\n"
          "\t\tcfg.device_feature = fn->device_features >> 32 * regs->device_feature_select",
          "if (1)\n\t\tcfg.device_feature = fn->device_features >> 32 * (regs->device_feature_select & 1)",
          "device_features_beyond_63_are_0"),
    fault("the driver's features read as 0", COMMON, "cfg.driver_feature = regs->driver_features",
          "cfg.driver_feature = 0 * regs->driver_features", "driver_features_read_back"),
    fault("SR_IOV is offered", FEATURES, "FEATURE(VIRTIO_F_VERSION_1) |",
          "FEATURE(VIRTIO_F_VERSION_1) | FEATURE(VIRTIO_F_SR_IOV) |", "reserved_features_are_not_offered"),
    fault("VERSION_1 is not offered", FEATURES, "FEATURE(VIRTIO_F_VERSION_1) |", "", "version_1_is_offered"),
    fault("segmentation without checksums", FEATURES, "if (params->offloads != VFN_OFFLOADS_ALL)", "if (0)",
          "offered_features_are_complete"),
    fault("a reset keeps what a queue had", COMMON, "\t\tvfn_queue_clear(fn, regs, i);",
          "\t\tif (regs->queue[i].size == 0)\n\t\t\tvfn_queue_clear(fn, regs, i);\n"
          "\t\telse\n\t\t\tregs->queue[i].enabled = false;",
          "reset_makes_registers_as_new", "vectors_are_unmapped_by_reset"),
    fault("a reset keeps ISR", COMMON, "\t__atomic_store_n(&fn->isr, 0, __ATOMIC_RELAXED);\n", "",
          "isr_ends_with_a_reset"),

    # the device configuration
    fault("no configuration before FEATURES_OK", COMMON,
          "\tmemcpy(buf, fn->config_seen + offset, len);",
          "\tmemcpy(buf, fn->config_seen + offset, len);\n"
          "\tif (!(fn->regs.status & VIRTIO_CONFIG_S_FEATURES_OK))\n\t\tmemset(buf, 0, len);",
          "configuration_is_readable_before_features_ok"),
    fault("the generation stays", COMMON, "\t\tfn->config_generation++;\n", "",
          "configuration_change_shows_in_the_generation", "change_by_the_driver_shows_in_the_generation"),
    fault("the generation comes round", COMMON, "\t\tfn->config_generation++;\n",
          "\t\tfn->config_generation = now[10]; /* of the MTU, which is counted up */\n",
          "generation_does_not_wrap"),
    fault("changes are told to nobody's driver", IRQ,
          "if (!(fn->regs.status & VIRTIO_CONFIG_S_DRIVER_OK))\n\t\treturn;", "",
          "configuration_change_is_told_to_a_driver_only"),

    # queues
    fault("a queue that is not there is another", COMMON, "\tconst struct vfn_queue *q = vfn_selected(fn);",
          "\tconst struct vfn_queue *q = &fn->queue[regs->queue_select % fn->nb_queues];",
          "missing_queue_has_size_0"),
    fault("any size", COMMON, "cfg.queue_size = size_shown(fn, r->size)", "cfg.queue_size = r->size",
          "split_queue_size_is_a_power_of_2"),
    fault("a size is for ever", COMMON, "\t\tif (settable)\n\t\t\tr->size = v;",
          "\t\tif (settable && !(fn->regs.status & VIRTIO_CONFIG_S_DRIVER_OK))\n\t\t\tr->size = v;",
          "queue_is_enabled_anew_with_other_parameters"),
    fault("a queue reset that does nothing", COMMON, "v == 1 && vfn_has(fn, VIRTIO_F_RING_RESET)", "0",
          "queue_reset_reads_0_when_done", "broken_queue_is_mended_by_its_reset"),
    fault("a queue reset that was not negotiated", COMMON, "v == 1 && vfn_has(fn, VIRTIO_F_RING_RESET)",
          "v == 1", "queue_reset_is_nothing_unless_negotiated"),
    faults("a queue reset that only says so", COMMON,
           (("\t\t\tqueue_reset(q);", "\t\t\tr->moving = true;"),
            ("static void\nqueue_reset(", "static __attribute__((unused)) void\nqueue_reset("),
            ("cfg.queue_enable = r->enabled;", "cfg.queue_enable = r->enabled && !r->moving;")),
           "reset_queue_is_left_alone"),
    fault("a queue reset keeps registers", COMMON, "vfn_queue_clear(q->fn, &q->fn->regs, q->index);",
          "r->enabled = false;", "reset_queue_is_as_new"),
    fault("a queue reset keeps a packed position", COMMON,
          "\tif (vfn_has(q->fn, VIRTIO_F_RING_PACKED))\n\t\tr->position = VRINGH_PACKED_START;\n\tvfn_irqs",
          "\tvfn_irqs", "reset_queue_is_as_new"),
    fault("halves of addresses clear each other", COMMON,
          "vfn_set_half(&r->area[area / 2], area % 2, v);",
          "r->area[area / 2] = area % 2 ? (uint64_t)v << 32 : v;", "halves_of_64_bits_are_independent"),
    fault("no queue after DRIVER_OK", COMMON, "if (settable && v == 1 &&",
          "if (settable && !(fn->regs.status & VIRTIO_CONFIG_S_DRIVER_OK) && v == 1 &&",
          "queue_can_be_enabled_after_driver_ok"),
    fault("a queue is enabled twice", COMMON, "if (settable && v == 1 &&",
          "if (q != NULL && r->enabled && v == 1) {\n\t\t\tvfn_quiesce(fn);\n\t\t\tr->enabled = false;\n"
          "\t\t\tvfn_resume(fn);\n\t\t}\n\t\tif (q != NULL && v == 1 &&",
          "enabled_queue_keeps_its_rings"),

    # rings
    fault("a broken queue is silent", QUEUE,
          "\tif (!vfn_has(q->fn, VIRTIO_F_RING_RESET))\n\t\tvfn_lost_ring(q->fn);\n", "",
          "broken_queue_needs_a_reset"),
    fault("DEVICE_NEEDS_RESET is not told", LOST, "\tvfn_config_changed(fn);\n", "",
          "broken_queue_needs_a_reset"),
    fault("a broken queue ends everything", QUEUE, "\tif (!vfn_has(q->fn, VIRTIO_F_RING_RESET))\n", "",
          "broken_queue_is_mended_by_its_reset"),
    fault("tables are not taken", QUEUE,
          ".indirect = vfn_regs_have(regs, VIRTIO_RING_F_INDIRECT_DESC),", ".indirect = false,",
          "tables_are_taken", "descriptors_may_come_before_a_table"),
    fault("tables that are written to are refused", SPLIT,
          "\tfor (seen = 1;; seen++) {\n\t\terror = walk_desc(vr, &w, &d, false, kind);",
          "\tfor (seen = 1;; seen++) {\n\t\terror = d.flags == 6 ? VRINGH_E_INDIRECT :\n"
          "\t\t\twalk_desc(vr, &w, &d, false, kind);", "write_flag_of_a_table_is_ignored"),
    fault("used lengths are wrong", SPLIT, "(uint64_t)chain->written << 32",
          "(uint64_t)(chain->written + 1) << 32", "used_length_is_what_was_written"),
    fault("used lengths of packed rings are wrong", PACKED, "v = c->written | (counts",
          "v = (c->written + (c->written > 0)) | (counts", "used_length_is_what_was_written"),
    fault("used entries are the other way round", SPLIT, "&ring->ring[(used + i) & mask];",
          "&ring->ring[(used + (in_order ? i : n - 1 - i)) & mask];", "chains_are_used_in_ring_order"),
    fault("runs are not told by their last chain", SPLIT, "used_write(elem, &chain[i], io);",
          "used_write(elem, &chain[in_order && i > 0 ? i - 1 : i], io);", "in_order_is_in_order"),
    fault("descriptors are written", SPLIT, "\tvr->used = used += n;\n",
          "\tvr->used = used += n;\n\t((struct vring_desc *)vr->split.desc)[chain[0].id].len++;\n",
          "descriptor_table_is_not_written"),
    fault("readable buffers are written", SPLIT, "\tvr->used = used += n;\n",
          "\tvr->used = used += n;\n\tif (chain[0].written == 0)\n\t\t(*(uint8_t *)(vr->hit[0].host +\n"
          "\t\t\t(vr->split.desc[chain[0].id].addr - vr->hit[0].iova)))++;\n", "any_framing_is_taken"),
    fault("a ring goes round once", PACKED, "\t\tvr->avail_flags ^= PACKED_BOTH;\n", "",
          "rings_go_round"),
    fault("avail flags are not looked at", NOTIFY, "\tif (!vr->event_idx)\n\t\treturn !(driver",
          "\tif (0)\n\t\treturn !(driver", "avail_flags_ask_for_notifications"),
    fault("used_event is not looked at", NOTIFY, "\tif (!vr->event_idx)\n\t\treturn !(driver",
          "\tif (1)\n\t\treturn !(driver", "used_event_asks_for_notifications"),
    fault("the event flags are not looked at", NOTIFY,
          "\tif (flags == VRING_PACKED_EVENT_FLAG_DISABLE)\n\t\treturn false;", "",
          "driver_event_area_asks_for_notifications"),
    fault("the event's position is not looked at", NOTIFY, "if (flags != VRING_PACKED_EVENT_FLAG_DESC ||",
          "if (1 || flags != VRING_PACKED_EVENT_FLAG_DESC ||",
          "driver_event_position_asks_for_notifications"),
    fault("used flags beside EVENT_IDX", NOTIFY,
          "else if (!vr->event_idx)\n\t\tevent_store(vr, &vr->split.used->flags, VRING",
          "else\n\t\tevent_store(vr, &vr->split.used->flags, VRING", "used_flags_are_valid"),
    fault("event flags that there are not", NOTIFY, "VRING_PACKED_EVENT_FLAG_DISABLE);\n\telse if",
          "3);\n\telse if", "device_event_area_is_valid"),
    fault("notifications are asked for by flags that there are not", NOTIFY,
          "event_store(vr, &event->flags, VRING_PACKED_EVENT_FLAG_ENABLE)",
          "event_store(vr, &event->flags, 3)",
          "device_event_area_is_valid"),
    fault("notifications are asked for beyond the ring", NOTIFY,
          "&event->off_wrap, vringh_get_state(vr).avail)",
          "&event->off_wrap, vringh_get_state(vr).avail + vr->size)",
          "device_event_area_is_valid"),
    fault("notifications are asked for by used flags that there are not", NOTIFY,
          "event_store(vr, &vr->split.used->flags, 0)", "event_store(vr, &vr->split.used->flags, 2)",
          "used_flags_are_valid"),
    fault("half of the available bits", PACKED,
          "if ((flags & PACKED_BOTH) != want)\n\t\treturn false;",
          "if ((flags & PACKED_BOTH) != want && (flags & PACKED_BOTH) != 0)\n\t\treturn false;",
          "descriptor_waits_for_its_avail_bit"),
    fault("used descriptors are changed again", PACKED, "\tvr->used = u.slot;\n",
          "\tvr->used = u.slot;\n\tif (u.slot > 3)\n\t\tvr->packed_ring.desc[u.slot - 3].len ^= 0x100;\n",
          "used_descriptor_is_not_changed_again"),

    # notifications
    fault("doorbells do not ring", DOORBELL, "\tvfn_work_wake(&fn->queue[index]);\n", "",
          "notification_is_the_index_of_the_queue", "notification_has_the_position",
          "notification_has_data_of_the_device"),
    fault("doorbells of two bytes only", DOORBELL, "(len != 2 && len != 4)", "len != 2",
          "notification_has_the_position"),
    fault("doorbells are believed", DOORBELL, "\tvfn_work_wake(&fn->queue[index]);\n",
          "\tif (*(const uint8_t *)buf >= fn->nb_queues)\n"
          "\t\tfn->regs.status |= VIRTIO_CONFIG_S_NEEDS_RESET;\n"
          "\tvfn_work_wake(&fn->queue[index]);\n", "spurious_notifications_are_harmless"),

    # interrupts
    fault("a queue's vector beyond the table", QUEUE, "vector < vfn_nb_vectors(q->fn) ?",
          "vector <= vfn_nb_vectors(q->fn) ?", "vector_that_is_not_there_reads_as_none"),
    fault("the table is larger than it says", PCI, "uint16_t control = vfn_nb_vectors(fn) - 1;",
          "uint16_t control = vfn_nb_vectors(fn) - 2;", "vector_that_is_not_there_reads_as_none"),
    fault("the configuration's vector beyond the table", COMMON, "v < vfn_nb_vectors(fn) ? v",
          "v <= vfn_nb_vectors(fn) ? v", "vector_that_is_not_there_reads_as_none"),
    fault("a vector for each queue", QUEUE, "vector < vfn_nb_vectors(q->fn) ?", "vector == q->index + 1u ?",
          "any_event_maps_to_any_vector", "events_can_share_a_vector"),
    fault("vectors are not masked at first", PCI, "= 1; /* masked */", "= 0;",
          "table_has_the_vectors_it_says"),
    fault("the configuration stays mapped", COMMON, "regs->config_vector = NO_VECTOR;",
          "regs->config_vector = 0;", "vectors_are_unmapped_by_reset"),
    fault("a configuration without a vector interrupts", IRQ,
          "\tif (vector == NO_VECTOR)\n\t\treturn false;",
          "\tif (vector == NO_VECTOR)\n\t\tvector = 0;", "unmapped_events_do_not_interrupt"),
    fault("a queue without a vector interrupts", IRQ, "\t\tq->call_fd = VFN_CALL_NOBODY;\n\telse\n",
          "\t\tq->call_vector = 1, q->call_fd = fn->irq[1].fd;\n\telse\n",
          "unmapped_events_do_not_interrupt"),
    fault("the function's mask is not looked at", PCI,
          " || (config_word(fn, CAP_MSIX + 2) & MSIX_MASKED)", "", "masked_vector_stays_pending"),
    fault("a queue without bus master", QUEUE, " && vfn_pci_master(q->fn)", "",
          "memory_is_left_alone_without_bus_master"),
    fault("messages without bus master", PCI, "return !vfn_pci_master(fn) || ", "return ",
          "messages_wait_for_bus_master"),
    fault("what is pending stays pending", IRQ,
          "__atomic_exchange_n(&fn->irq[i].pending, false, __ATOMIC_RELAXED)",
          "__atomic_load_n(&fn->irq[i].pending, __ATOMIC_RELAXED)", "masked_vector_stays_pending"),
    fault("a reset keeps what is pending", IRQ, "\t\tif (!mapped[i])\n", "\t\tif (mapped[i] && 0)\n",
          "pending_interrupts_end_with_a_reset"),
    fault("a reset forgets what others have pending", IRQ, "\t\tif (!mapped[i])\n",
          "\t\tif (mapped[i] || 1)\n",
          "pending_interrupts_of_others_do_not_end_with_a_queue"),
    fault("ISR stays", PCI, "__atomic_exchange_n(&fn->isr, 0, __ATOMIC_ACQ_REL)",
          "__atomic_load_n(&fn->isr, __ATOMIC_ACQUIRE)", "isr_is_cleared_by_reading"),
    fault("the status bit of PCI stays clear", PCI, "fn->pci.config[PCI_STATUS] |= PCI_STATUS_INTX;", ";",
          "isr_and_the_pin_tell_without_messages"),
    faults("the pin beside messages", IRQ,
           (("\tif (!vfn_pci_msix_on(fn)) {\n\t\traise_intx", "\tif (1) {\n\t\traise_intx"),
            ("\tif (!vfn_pci_msix_on(fn) ||\n\t\t(vector != NO_VECTOR",
             "\tif (1 ||\n\t\t(vector != NO_VECTOR")),
           "isr_and_the_pin_tell_without_messages"),
    fault("the pin cannot be switched off", IRQ, "!vfn_pci_intx_off(fn) && ", "", "pin_can_be_switched_off"),
    fault("a configuration change is not in ISR", IRQ,
          "\t__atomic_fetch_or(&fn->isr, VFN_ISR_CONFIG, __ATOMIC_ACQ_REL);\n", "",
          "isr_tells_of_a_configuration_change"),

    # configuration space
    fault("IDs can be written", PCI, "{PCI_COMMAND, 1, 0x47},", "{0, 16, 0xff},",
          "header_is_that_of_a_pci_function"),
    fault("revision of a transitional device", PCI, "{0x08, 1, 1},", "{0x08, 1, 0},", "device_is_identified"),
    fault("a capability without its extra data", PCI,
          "cap.cap_len = sizeof(struct virtio_pci_notify_cap);", ";",
          "capabilities_say_how_long_they_are"),
    fault("the vendor is virtio", PCI, ".vendor_id = VFN_VENDOR_ID", ".vendor_id = VFN_PCI_VENDOR",
          "vendor_capability_is_not_of_virtio"),
    fault("a structure that is not aligned", PCI, "VFN_OFF_DEVICE, fn->class->config_size);",
          "VFN_OFF_DEVICE + 1, fn->class->config_size);", "structures_are_there_and_aligned"),
    fault("ISR within the common structure", PCI, "VFN_REGION_BAR0, VFN_OFF_ISR, 1);",
          "VFN_REGION_BAR0, VFN_OFF_COMMON + 4, 1);", "structures_do_not_overlap"),
    fault("shared memory", PCI, "virtio_cap(fn, CAP_PCI_CFG, CAP_VENDOR, VIRTIO_PCI_CAP_PCI_CFG",
          "virtio_cap(fn, CAP_PCI_CFG, CAP_VENDOR, VIRTIO_PCI_CAP_SHARED_MEMORY_CFG",
          "there_is_no_shared_memory", "structures_are_there_and_aligned"),
    fault("a doorbell less", PCI, "fn->nb_queues * VFN_NOTIFY_STEP", "(fn->nb_queues - 1) * VFN_NOTIFY_STEP",
          "doorbells_are_within_their_structure"),
    fault("doorbells in the middle of a word", PCI, "step = VFN_NOTIFY_STEP", "step = VFN_NOTIFY_STEP + 2",
          "doorbells_are_within_their_structure"),
    fault("a window to one BAR", PCI, "return vfn_regs_read(fn, cap.bar, cap.offset, buf, len);",
          "return vfn_regs_read(fn, 0, cap.offset, buf, len);", "window_reads_and_writes_the_bars"),
    fault("a window to nothing", PCI, "\tmemcpy(cap, fn->pci.config + CAP_PCI_CFG, sizeof(*cap));",
          "\tmemcpy(cap, fn->pci.config + CAP_PCI_CFG, sizeof(*cap));\n\tcap->offset |= 0x4000;",
          "window_reads_and_writes_the_bars"),

    # what virtio does not have
    fault("suspended queues go on", QUEUE, "return r->enabled && !r->suspended;", "return r->enabled;",
          "suspended_queue_is_left_alone", "all_queues_are_suspended_at_once"),
    fault("a position is off by one", PARTS, ".avail = position.avail, .used = position.used,",
          ".avail = position.avail + 1, .used = position.used + 1,", "device_is_saved_and_loaded"),
    fault("a queue's vector is not saved", PARTS, ".vector = r->vector,", ".vector = NO_VECTOR,",
          "device_is_saved_and_loaded"),
    fault("the last queue is not saved", PARTS, "for (i = 0; i < fn->nb_queues; i++)\n\t\tput_queue",
          "for (i = 0; i + 1u < fn->nb_queues; i++)\n\t\tput_queue", "device_is_saved_and_loaded"),
    fault("checksums are not looked at", PARTS_SET,
          "if (header.checksum != vfn_parts_checksum(parts, header.length))", "if (0)",
          "wrong_parts_change_nothing"),
    fault("parts are set while it runs", PARTS_SET,
          "if (!check && ((fn->regs.status & VIRTIO_CONFIG_S_DRIVER_OK) || fn->regs.dirty_on))", "if (0)",
          "running_device_takes_no_parts"),
)
