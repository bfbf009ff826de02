# conan create packaging/conan, from the repository
import os

from conan import ConanFile
from conan.tools.files import copy


class KvConan(ConanFile):
    name = "kv"
    version = "0.1.0"
    license = "MIT"
    description = "Header-only key-value stores for C and C++: hash map, ordered map, frozen map, compression, durable store"
    topics = ("key-value", "storage", "header-only", "embedded")
    package_type = "header-library"
    no_copy_source = True
    options = {"compress": [True, False]}
    default_options = {"compress": True}

    def export_sources(self):
        top = os.path.join(self.recipe_folder, "..", "..")
        copy(self, "kv*.h", top, self.export_sources_folder)
        copy(self, "LICENSE", top, self.export_sources_folder)

    def requirements(self):
        self.requires("xxhash/[>=0.8.0]")
        if self.options.compress:
            self.requires("lz4/[>=1.9.0]")
            self.requires("zstd/[>=1.4.0]")

    def package(self):
        copy(self, "kv*.h", self.source_folder, os.path.join(self.package_folder, "include"))
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        if not self.options.compress:
            self.cpp_info.defines = ["KV_NO_LZ4", "KV_NO_ZSTD"]
