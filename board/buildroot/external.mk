# SPDX-License-Identifier: MIT
include $(sort $(wildcard $(BR2_EXTERNAL_MAILSTILE_PATH)/package/*/*.mk))
