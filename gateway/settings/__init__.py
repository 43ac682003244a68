"""Typed configuration: what the gateway is told, from a YAML file, variables and flags.

Read by the wiring, the serving layer and the command line only.
"""

from gateway.settings.load import (
    LoadResult,
    credential_count,
    load_settings,
    masked,
    shown_store_url,
    used_upstreams,
    uses_embedded,
)
from gateway.settings.model import (
    AdminSettings,
    AgentSettings,
    DialectSettings,
    GuardSettings,
    HelperSettings,
    HyperleapSettings,
    HyponemaSettings,
    KeySettings,
    LimitSettings,
    PriceSettings,
    ServerSettings,
    Settings,
    StoreSettings,
    TargetSettings,
    TenantSettings,
    ToolSettings,
    UpstreamSettings,
    WidgetSettings,
)
from gateway.settings.problems import ConfigError, Problem

__all__ = [
    "AdminSettings",
    "AgentSettings",
    "ConfigError",
    "DialectSettings",
    "GuardSettings",
    "HelperSettings",
    "HyperleapSettings",
    "HyponemaSettings",
    "KeySettings",
    "LimitSettings",
    "LoadResult",
    "PriceSettings",
    "Problem",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "TargetSettings",
    "TenantSettings",
    "ToolSettings",
    "UpstreamSettings",
    "WidgetSettings",
    "credential_count",
    "load_settings",
    "masked",
    "shown_store_url",
    "used_upstreams",
    "uses_embedded",
]
