/* cc paint.c -o paint -lonnxruntime
   paint model.onnx photo.raw HEIGHT WIDTH painting.raw HEIGHT WIDTH out.raw
   A raw file holds float32 numbers in [0, 1], (3, HEIGHT, WIDTH), in the byte order of the machine. */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

static const OrtApi *ort;

static void check(OrtStatus *status) {
  if (status) fprintf(stderr, "%s\n", ort->GetErrorMessage(status)), exit(1);
}

static OrtValue *read_picture(const char *file, const char *height, const char *width) {
  int64_t shape[] = {1, 3, atoll(height), atoll(width)};
  size_t count = 3 * shape[2] * shape[3];
  OrtAllocator *allocator;
  OrtValue *value;
  float *pixels;
  FILE *in = fopen(file, "rb");
  check(ort->GetAllocatorWithDefaultOptions(&allocator));
  check(ort->CreateTensorAsOrtValue(allocator, shape, 4, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &value));
  check(ort->GetTensorMutableData(value, (void **)&pixels));
  if (!in || fread(pixels, sizeof *pixels, count, in) != count) fprintf(stderr, "cannot read %s\n", file), exit(1);
  fclose(in);
  return value;
}

int main(int argc, char **argv) {
  if (argc != 9) return fprintf(stderr, "8 arguments are needed\n"), 2;
  OrtEnv *env;
  OrtSessionOptions *options;
  OrtSession *session;
  float *pixels;
  ort = OrtGetApiBase()->GetApi(16); /* of version 1.16 and newer */
  const OrtValue *inputs[] = {read_picture(argv[2], argv[3], argv[4]), read_picture(argv[5], argv[6], argv[7])};
  const char *input_names[] = {"content", "style"}, *output_names[] = {"stylized"};
  OrtValue *stylized = NULL;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "paint", &env));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(env, argv[1], options, &session));
  check(ort->Run(session, NULL, input_names, inputs, 2, output_names, 1, &stylized));
  check(ort->GetTensorMutableData(stylized, (void **)&pixels));
  FILE *out = fopen(argv[8], "wb");
  size_t count = 3 * atoll(argv[3]) * atoll(argv[4]);
  return !out || fwrite(pixels, sizeof *pixels, count, out) != count || fclose(out);
}
