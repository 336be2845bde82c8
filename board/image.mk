# SPDX-License-Identifier: MIT
# Images that boot; included by the Makefile.
#   make image BOARD=malta               $(B)/image: kernel and initrd.gz of Debian's kernel, BusyBox, board/rootfs, mailstile
#   make image BOARD=malta KERNEL=own    $(B)/image-own: the same with a small kernel and a BusyBox that we compile; always so for malta-be
#   make boot BOARD=malta [KERNEL=own]   and boots it in QEMU; the disk is disk.img beside it. Ctrl-a x ends it
#   make kernel BOARD=malta              only that kernel

KERNEL ?= $(shell sed -n 's/^KERNEL=own$$/own/p' board/$(BOARD)/image.conf 2> /dev/null)
IMAGE := $(B)/image$(if $(filter own,$(KERNEL)),-own)
OWN_FLAGS := $(ARCHFLAGS) $(if $(filter 0,$(PIE)),$(NOPIE),-fno-pie)

.PHONY: image boot kernel
image: $(PROG)
	@test/install-deps.sh --check image $(if $(filter own,$(KERNEL)),kernel)
ifeq ($(KERNEL),own)
	$(Q)kernel=$$(CROSS='$(CROSS)' board/kernel.sh '$(BOARD)' '$(B)') && \
		busybox=$$(CROSS='$(CROSS)' FLAGS='$(OWN_FLAGS)' board/busybox.sh '$(BOARD)' '$(B)/musl' "$$kernel" '$(B)') && \
		SOURCE_DATE_EPOCH='$(EPOCH)' board/image.sh '$(BOARD)' '$(PROG)' '$(IMAGE)' "$$kernel" "$$busybox"
else
	$(Q)SOURCE_DATE_EPOCH='$(EPOCH)' board/image.sh '$(BOARD)' '$(PROG)' '$(IMAGE)'
endif
boot: image
	@test/install-deps.sh --check boot
	$(Q)board/boot.sh '$(IMAGE)' '$(IMAGE)/disk.img'
kernel:
	@test/install-deps.sh --check build kernel $(PACKAGES:%=pkg:%)
	$(Q)CROSS='$(CROSS)' board/kernel.sh '$(BOARD)' '$(B)'
