// runtime_refusals.cpp: of the stand-in for the CUDA runtime: what an op must not call, and what is not emulated. Each
// call is noted and refused in words.
#include "runtime.h"

using namespace stand_in;

#pragma GCC visibility push(default)

#define FORBIDDEN_IN_A_CAPTURE(name, ...)                                                                         \
  cudaError_t name(__VA_ARGS__) {                                                                                 \
    note_call(#name);                                                                                             \
    return refuse(#name, cudaErrorStreamCaptureUnsupported, "a stream that is being captured does not allow it"); \
  }

#define NOT_EMULATED(name, ...)                                        \
  cudaError_t name(__VA_ARGS__) {                                      \
    note_call(#name);                                                  \
    return refuse(#name, cudaErrorNotSupported, "it is not emulated"); \
  }

extern "C" {

FORBIDDEN_IN_A_CAPTURE(cudaMalloc, void**, size_t)
FORBIDDEN_IN_A_CAPTURE(cudaMallocHost, void**, size_t)
FORBIDDEN_IN_A_CAPTURE(cudaMallocManaged, void**, size_t, unsigned)
FORBIDDEN_IN_A_CAPTURE(cudaFree, void*)
FORBIDDEN_IN_A_CAPTURE(cudaFreeHost, void*)
FORBIDDEN_IN_A_CAPTURE(cudaMemcpy, void*, const void*, size_t, cudaMemcpyKind)
FORBIDDEN_IN_A_CAPTURE(cudaMemset, void*, int, size_t)
FORBIDDEN_IN_A_CAPTURE(cudaDeviceSynchronize)
FORBIDDEN_IN_A_CAPTURE(cudaStreamSynchronize, cudaStream_t)
FORBIDDEN_IN_A_CAPTURE(cudaStreamQuery, cudaStream_t)
FORBIDDEN_IN_A_CAPTURE(cudaEventSynchronize, cudaEvent_t)
FORBIDDEN_IN_A_CAPTURE(cudaEventQuery, cudaEvent_t)

NOT_EMULATED(cudaMallocAsync, void**, size_t, cudaStream_t)
NOT_EMULATED(cudaFreeAsync, void*, cudaStream_t)
NOT_EMULATED(cudaMemcpyAsync, void*, const void*, size_t, cudaMemcpyKind, cudaStream_t)
NOT_EMULATED(cudaMemsetAsync, void*, int, size_t, cudaStream_t)
NOT_EMULATED(cudaLaunchCooperativeKernel, const void*, dim3, dim3, void**, size_t, cudaStream_t)
NOT_EMULATED(cudaOccupancyAvailableDynamicSMemPerBlock, size_t*, const void*, int, int)
NOT_EMULATED(cudaOccupancyMaxActiveClusters, int*, const void*, const cudaLaunchConfig_t*)
NOT_EMULATED(cudaOccupancyMaxPotentialClusterSize, int*, const void*, const cudaLaunchConfig_t*)

// Every stream counts as one that is being captured.
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  note_call("cudaStreamIsCapturing");
  *status = cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long* id,
                                     cudaGraph_t* graph, const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges,
                                     size_t* count) {
  note_call("cudaStreamGetCaptureInfo");
  if (graph != nullptr || nodes != nullptr || edges != nullptr || count != nullptr)
    return refuse("cudaStreamGetCaptureInfo", cudaErrorNotSupported, "there is no graph to look into");
  *status = cudaStreamCaptureStatusActive;
  if (id != nullptr) *id = 1;
  return cudaSuccess;
}

}  // extern "C"
