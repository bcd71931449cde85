"""Asks a Vulkan driver for the statistics of a compute shader, by way of VK_KHR_pipeline_executable_properties.

The device has every feature that the driver offers, the robust access to buffers among them: so has wgpu's.
"""

import ctypes
import struct
from ctypes import POINTER, Structure, addressof, byref, c_char_p, c_float, c_int32, c_size_t, c_uint32, c_void_p
from typing import Any

# VkStructureType: of what is created, and of what is asked for
DEVICE_QUEUE, DEVICE, SHADER_STAGE, COMPUTE_PIPELINE = 2, 3, 18, 29
INSTANCE, SHADER_MODULE, PIPELINE_LAYOUT, SET_LAYOUT = 1, 15, 30, 32
FEATURES, EXECUTABLE, STATISTIC = 1000059000, 1000269004, 1000269005
VERSIONS = {49: 12, 51: 47, 53: 15}  # the features of Vulkan 1.1, 1.2 and 1.3: VkStructureType and number of flags
EXTENSIONS = {  # the extensions wanted where they are offered, with the same of their features
    b"VK_KHR_pipeline_executable_properties": (1000269000, 1),
    b"VK_KHR_cooperative_matrix": (1000506000, 2),
    b"VK_EXT_robustness2": (1000286000, 3),
}
CORE_FEATURES = 55  # flags of VkPhysicalDeviceFeatures
COMPUTE, CAPTURE_STATISTICS, VERSION_1_3 = 0x20, 0x40, 1 << 22 | 3 << 12
UNIFORM_BUFFER, STORAGE_BUFFER = 6, 7
NAME, EXTENSION_BYTES, STATISTIC_BYTES = 256, 260, 16 + 256 + 256 + 16
OP_DECORATE, OP_VARIABLE, BINDING, UNIFORM = 71, 59, 33, 2  # of SPIR-V


def vulkan_struct(*fields: tuple[str, Any]) -> type[Structure]:
    """A structure of Vulkan: its type, the next one in its chain, then `fields`."""
    return type("VulkanStruct", (Structure,), {"_fields_": [("type", c_uint32), ("next", c_void_p), *fields]})


U, P = c_uint32, c_void_p
Application = vulkan_struct(("name", c_char_p), ("v", U), ("engine", c_char_p), ("engine_v", U), ("api", U))
InstanceInfo = vulkan_struct(("flags", U), ("application", P), ("layers", U), ("l", P), ("extensions", U), ("e", P))
QueueInfo = vulkan_struct(("flags", U), ("family", U), ("count", U), ("priorities", P))
DeviceInfo = vulkan_struct(
    ("flags", U), ("queues", U), ("q", P), ("layers", U), ("l", P), ("extensions", U), ("e", POINTER(c_char_p)), ("features", P)
)
ModuleInfo = vulkan_struct(("flags", U), ("size", c_size_t), ("code", P))
SetLayoutInfo = vulkan_struct(("flags", U), ("count", U), ("bindings", P))
PipelineLayoutInfo = vulkan_struct(("flags", U), ("sets", U), ("s", P), ("ranges", U), ("r", P))
StageInfo = vulkan_struct(("flags", U), ("stage", U), ("module", P), ("name", c_char_p), ("constants", P))
PipelineInfo = vulkan_struct(("flags", U), ("stage", StageInfo), ("layout", P), ("base", P), ("base_index", c_int32))
ExecutableInfo = vulkan_struct(("pipeline", P), ("index", U))


class BindingInfo(Structure):
    _fields_ = (("binding", U), ("kind", U), ("count", U), ("stages", U), ("samplers", P))


class Vulkan:
    """The first device of the first driver that the loader finds. It lives as long as the process."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL("libvulkan.so.1")
        application = Application(api=VERSION_1_3)
        instance = self._make("vkCreateInstance", InstanceInfo(type=INSTANCE, application=addressof(application)), parent=None)
        count, physical = U(1), P()
        self.lib.vkEnumeratePhysicalDevices(instance, byref(count), byref(physical))
        if not count.value:
            raise SystemExit("Vulkan finds no device")
        names = self._extensions(physical)
        features = list(VERSIONS.items()) + [EXTENSIONS[name] for name in names]
        # one block of memory for a chain of structures: type, next, flags
        chain = [ctypes.create_string_buffer(16 + 4 * n + 8) for n in (CORE_FEATURES, *(n for _, n in features))]
        for i, kind in enumerate((FEATURES, *(kind for kind, _ in features))):
            after = addressof(chain[i + 1]) if i + 1 < len(chain) else 0
            struct.pack_into("<IxxxxQ", chain[i], 0, kind, after)
        self.lib.vkGetPhysicalDeviceFeatures2(physical, chain[0])
        priority = c_float(1)
        queue = QueueInfo(type=DEVICE_QUEUE, count=1, priorities=addressof(priority))
        info = DeviceInfo(type=DEVICE, next=addressof(chain[0]), queues=1, q=addressof(queue), extensions=len(names))
        info.e = (c_char_p * len(names))(*names)
        self.device = self._make("vkCreateDevice", info, parent=physical)
        self.lib.vkGetDeviceProcAddr.restype = P
        found = self.lib.vkGetDeviceProcAddr(self.device, b"vkGetPipelineExecutableStatisticsKHR")
        self.read_statistics = ctypes.CFUNCTYPE(c_int32, P, P, P, P)(found)

    def _extensions(self, physical: Any) -> list[bytes]:
        count = U()
        self.lib.vkEnumerateDeviceExtensionProperties(physical, None, byref(count), None)
        block = ctypes.create_string_buffer(EXTENSION_BYTES * count.value)
        self.lib.vkEnumerateDeviceExtensionProperties(physical, None, byref(count), block)
        offered = {ctypes.string_at(addressof(block) + EXTENSION_BYTES * i) for i in range(count.value)}
        return [name for name in EXTENSIONS if name in offered]

    def _make(self, function: str, info: Structure, parent: Any) -> Any:
        """The handle that a vkCreate... function makes."""
        handle = P()
        before = () if function == "vkCreateInstance" else (parent,)
        result = getattr(self.lib, function)(*before, byref(info), None, byref(handle))
        if result:
            raise SystemExit(f"{function} failed with {result}")
        return handle

    def statistics(self, code: bytes) -> dict[str, int]:
        """What the driver says about a SPIR-V module with the entry point `main`, by the driver's own names."""
        held = ctypes.create_string_buffer(code, len(code))
        module = self._make("vkCreateShaderModule", ModuleInfo(SHADER_MODULE, None, 0, len(code), addressof(held)), self.device)
        found = [BindingInfo(binding, kind, 1, COMPUTE) for binding, kind in spirv_bindings(code)]
        bindings = (BindingInfo * len(found))(*found)
        group = self._make(
            "vkCreateDescriptorSetLayout", SetLayoutInfo(SET_LAYOUT, None, 0, len(found), addressof(bindings)), self.device
        )
        layout = self._make(
            "vkCreatePipelineLayout", PipelineLayoutInfo(PIPELINE_LAYOUT, None, 0, 1, addressof(group), 0, None), self.device
        )
        stage = StageInfo(SHADER_STAGE, None, 0, COMPUTE, module, b"main")
        info = PipelineInfo(COMPUTE_PIPELINE, None, CAPTURE_STATISTICS, stage, layout, None, -1)
        pipeline = P()
        result = self.lib.vkCreateComputePipelines(self.device, None, 1, byref(info), None, byref(pipeline))
        if result:
            raise SystemExit(f"vkCreateComputePipelines failed with {result}")
        executable, count = ExecutableInfo(EXECUTABLE, None, pipeline, 0), U()
        self.read_statistics(self.device, addressof(executable), addressof(count), None)
        block = ctypes.create_string_buffer(STATISTIC_BYTES * count.value)
        for i in range(count.value):
            struct.pack_into("<I", block, i * STATISTIC_BYTES, STATISTIC)
        self.read_statistics(self.device, addressof(executable), addressof(count), addressof(block))
        self.lib.vkDestroyPipeline(self.device, pipeline, None)
        return dict(read_statistic(block.raw[i * STATISTIC_BYTES :]) for i in range(count.value))


def read_statistic(raw: bytes) -> tuple[str, int]:
    """Name and value of a VkPipelineExecutableStatisticKHR: type, next, name, description, format, value."""
    name = raw[16 : 16 + NAME].split(b"\0", 1)[0].decode()
    (is_float,) = struct.unpack_from("<I", raw, 16 + 2 * NAME)
    (value,) = struct.unpack_from("<d" if is_float == 3 else "<q", raw, 16 + 2 * NAME + 8)
    return name, int(value)


def spirv_bindings(code: bytes) -> list[tuple[int, int]]:
    """The bindings of a module's only group, each with its kind of buffer."""
    words = struct.unpack(f"<{len(code) // 4}I", code)
    bindings: dict[int, int] = {}
    classes: dict[int, int] = {}
    i = 5
    while i < len(words):
        op, length = words[i] & 0xFFFF, words[i] >> 16
        if op == OP_DECORATE and words[i + 2] == BINDING:
            bindings[words[i + 1]] = words[i + 3]
        elif op == OP_VARIABLE:
            classes[words[i + 2]] = words[i + 3]
        i += length
    return sorted((b, UNIFORM_BUFFER if classes[v] == UNIFORM else STORAGE_BUFFER) for v, b in bindings.items())
