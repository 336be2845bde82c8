# SPDX-License-Identifier: MIT
# Images that boot; included by the Makefile.
#   make image BOARD=malta     $(B)/image/kernel and initrd.gz: Debian's kernel, BusyBox, board/rootfs, mailstile
#   make boot BOARD=malta      and boots them in QEMU; the disk is $(B)/image/disk.img. Ctrl-a x ends it

.PHONY: image boot
image: $(PROG)
	@test/install-deps.sh --check image
	$(Q)SOURCE_DATE_EPOCH='$(EPOCH)' board/image.sh '$(BOARD)' '$(PROG)' '$(B)/image'
boot: image
	@test/install-deps.sh --check boot
	$(Q)board/boot.sh '$(BOARD)' '$(B)/image' '$(B)/image/disk.img'
