"""GLM-4.6V-Flash: GLM-4.1V's layers, with thinking that the question can switch off (`/nothink`)."""

from dataclasses import replace

from eyeline.adapters import glm4v

ADAPTER = replace(glm4v.ADAPTER, family="glm46v", models=("GLM-4.6V-Flash",))
