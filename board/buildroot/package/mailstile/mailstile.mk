# SPDX-License-Identifier: MIT
################################################################################
#
# mailstile
#
################################################################################

MAILSTILE_VERSION = 0.1.0
MAILSTILE_SITE = $(BR2_EXTERNAL_MAILSTILE_PATH)/../..
MAILSTILE_SITE_METHOD = local
MAILSTILE_LICENSE = MIT
MAILSTILE_LICENSE_FILES = LICENSE

# A board of ours that has the CPU.
MAILSTILE_BOARD = $(strip \
	$(if $(BR2_aarch64),aarch64) \
	$(if $(BR2_x86_64),x86_64) \
	$(if $(BR2_mipsel),malta) \
	$(if $(BR2_mips),malta-be) \
	$(if $(BR2_RISCV_64),riscv64) \
	$(if $(BR2_powerpc),powerpc) \
	$(if $(BR2_arm),$(if $(BR2_ARM_CPU_HAS_VFPV3)$(BR2_ARM_CPU_HAS_NEON),armv7,armv5)))

# The libraries' archives are checked by deps/fetch.sh, which finds them in the download directory or fetches them.
define MAILSTILE_BUILD_CMDS
	DEPS_DIR=$(BR2_DL_DIR) DEPS_CACHE=$(BR2_DL_DIR)/mailstile DEPS_CHECK=no $(MAKE) -C $(@D) \
		BOARD=$(MAILSTILE_BOARD) CROSS=$(TARGET_CROSS) CPPFLAGS=$(BR2_PACKAGE_MAILSTILE_OPTIONS)
endef

define MAILSTILE_INSTALL_TARGET_CMDS
	$(INSTALL) -D -m 0755 $(@D)/build/$(MAILSTILE_BOARD)/mailstile $(TARGET_DIR)/usr/sbin/mailstile
	$(INSTALL) -d -m 0755 $(TARGET_DIR)/var/qmail/control
endef

define MAILSTILE_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(MAILSTILE_PKGDIR)/S60mailstile $(TARGET_DIR)/etc/init.d/S60mailstile
	$(INSTALL) -D -m 0644 $(MAILSTILE_PKGDIR)/default $(TARGET_DIR)/etc/default/mailstile
endef

# user, uid, group, gid, password, home, shell, groups, comment
define MAILSTILE_USERS
	qmaild -1 nofiles -1 * - - - mailstile, clients
	qmailq -1 qmail -1 * - - - mailstile, queue
	qmails -1 qmail -1 * - - - mailstile, scheduler
	qmailr -1 qmail -1 * - - - mailstile, delivery
endef

$(eval $(generic-package))
