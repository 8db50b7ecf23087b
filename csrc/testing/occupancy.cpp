// Reads one kernel and one architecture per line, writes the blocks that fit onto a multiprocessor: NVIDIA's own rules.
// A line: major minor, threads, registers and shared bytes of a multiprocessor, shared bytes that a block may have,
// shared bytes that a block costs beside its own; threads of a block, registers of a thread, static and dynamic shared.
#include <cuda_occupancy.h>

#include <climits>
#include <cstddef>
#include <cstdio>

int main() {
  int major, minor, sm_threads, sm_registers, threads, registers;
  std::size_t sm_shared, block_shared, reserved, fixed, dynamic;
  while (std::scanf("%d %d %d %d %zu %zu %zu %d %d %zu %zu", &major, &minor, &sm_threads, &sm_registers, &sm_shared,
                    &block_shared, &reserved, &threads, &registers, &fixed, &dynamic) == 11) {
    cudaOccDeviceProp device;
    device.computeMajor = major;
    device.computeMinor = minor;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = sm_threads;
    device.regsPerBlock = sm_registers;
    device.regsPerMultiprocessor = sm_registers;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 * 1024;
    device.sharedMemPerMultiprocessor = sm_shared;
    device.numSms = 1;
    device.sharedMemPerBlockOptin = block_shared;
    device.reservedSharedMemPerBlock = reserved;
    cudaOccFuncAttributes kernel;
    kernel.maxThreadsPerBlock = INT_MAX;
    kernel.numRegs = registers;
    kernel.sharedSizeBytes = fixed;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    kernel.maxDynamicSharedSizeBytes = dynamic;
    kernel.numBlockBarriers = 1;
    const cudaOccDeviceState state;
    cudaOccResult result;
    const auto error = cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads, dynamic);
    std::printf("%d\n", error == CUDA_OCC_SUCCESS ? result.activeBlocksPerMultiprocessor : -1);
  }
}
