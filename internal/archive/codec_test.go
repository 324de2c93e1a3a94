package archive

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/schemas"
)

// compress packs content the way archives have it.
func compress(t testing.TB, codec string, content []byte) []byte {
	t.Helper()
	if codec == codecZstd {
		return encode(content)
	}
	var b bytes.Buffer
	w, err := zlib.NewWriterLevel(&b, 9)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// streamed is a zstd frame without the content's size in its header, written
// through a pipe so that it may be larger than memory.
func streamed(t testing.TB, content io.Reader, opts ...zstd.EOption) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := zstd.NewWriter(&b, opts...)
	if err == nil {
		_, err = io.Copy(w, content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is a zstd frame that unfolds to n bytes of zeros: a header that tells no
// size, with a window of 8 MiB, and run-length blocks of 128 KiB.
func bomb(n int) []byte {
	const block = 128 << 10
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3}
	for ; n > 0; n -= block {
		head := min(n, block)<<3 | 1<<1
		if n <= block {
			head |= 1
		}
		b = append(b, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return b
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func broken(blob []byte, at int) []byte {
	blob = bytes.Clone(blob)
	blob[at] ^= 0x55
	return blob
}

func TestDecode(t *testing.T) {
	t.Parallel()
	text := []byte(strings.Repeat("one, two, three. ", 500))
	half, rest := text[:4000], text[4000:]
	zs, zl := compress(t, codecZstd, text), compress(t, codecZlib, text)
	sized := streamed(t, bytes.NewReader(text)) // with a checksum, without the size
	skippable := join([]byte{0x5a, 0x2a, 0x4d, 0x18, 3, 0, 0, 0}, []byte("abc"))
	wide := streamed(t, bytes.NewReader(noise(1<<20)), zstd.WithWindowSize(128<<20))
	single, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
	if err != nil {
		t.Fatal(err)
	}
	withDict, err := zstd.NewWriter(nil, zstd.WithEncoderDictRaw(7, text))
	if err != nil {
		t.Fatal(err)
	}
	const size = 8500
	tests := []struct {
		name  string
		codec string
		blob  []byte
		size  int64
		want  []byte
		code  schemas.Code
	}{
		{name: "zstd", codec: "zstd", blob: zs, size: size, want: text},
		{name: "zlib", codec: "zlib", blob: zl, size: size, want: text},
		{name: "zstd by magic", blob: zs, size: size, want: text},
		{name: "zlib by magic", blob: zl, size: size, want: text},
		{name: "skippable frame by magic", blob: join(skippable, zs), size: size, want: text},
		{name: "frame without size", codec: "zstd", blob: sized, size: size, want: text},
		{name: "two frames", codec: "zstd", blob: join(encode(half), encode(rest)), size: size, want: text},
		{name: "two frames without size", codec: "zstd",
			blob: join(streamed(t, bytes.NewReader(half)), streamed(t, bytes.NewReader(rest))), size: size, want: text},
		{name: "skippable between frames", codec: "zstd", blob: join(skippable, encode(half), skippable, encode(rest)), size: size, want: text},
		{name: "empty frames around", codec: "zstd", blob: join(encode(nil), encode(text), encode(nil)), size: size, want: text},
		{name: "rubbish after the content", codec: "zstd", blob: join(zs, []byte("rubbish")), size: size, want: text},
		{name: "a frame after the content", codec: "zstd", blob: join(zs, encode(half)), size: size, want: text},
		{name: "rubbish after zlib", codec: "zlib", blob: join(zl, []byte("rubbish")), size: size, want: text},
		{name: "empty zstd", codec: "zstd", blob: encode(nil), want: []byte{}},
		{name: "empty zlib", codec: "zlib", blob: compress(t, "zlib", nil), want: []byte{}},
		{name: "rubbish after empty zstd", codec: "zstd", blob: join(encode(nil), []byte("rubbish")), want: []byte{}},
		{name: "run-length blocks", codec: "zstd", blob: encode(make([]byte, 1<<20)), size: 1 << 20, want: make([]byte, 1<<20)},
		{name: "raw blocks", codec: "zstd", blob: encode(noise(3<<20 + 5)), size: 3<<20 + 5, want: noise(3<<20 + 5)},
		{name: "single segment", codec: "zstd", blob: single.EncodeAll(noise(10<<20), nil), size: 10 << 20, want: noise(10 << 20)},
		{name: "zeros", codec: "zstd", blob: bomb(1e6), size: 1e6, want: make([]byte, 1e6)},

		{name: "codec in capitals", codec: "ZSTD", blob: zs, size: size, code: schemas.CodeCodecUnsupported},
		{name: "codec none", codec: "none", blob: text, size: size, code: schemas.CodeCodecUnsupported},
		{name: "codec gzip", codec: "gzip", blob: zs, size: size, code: schemas.CodeCodecUnsupported},
		{name: "nothing to recognise", blob: text, size: size, code: schemas.CodeCodecUnsupported},
		{name: "no bytes to recognise", size: 0, code: schemas.CodeCodecUnsupported},
		{name: "window too large", codec: "zstd", blob: wide, size: 1 << 20, code: schemas.CodeCodecUnsupported},
		{name: "single segment too large", codec: "zstd", blob: single.EncodeAll(make([]byte, MaxWindow+1), nil), size: MaxWindow + 1, code: schemas.CodeCodecUnsupported},
		{name: "dictionary", codec: "zstd", blob: withDict.EncodeAll(text, nil), size: size, code: schemas.CodeCodecUnsupported},

		{name: "no bytes of zstd", codec: "zstd", code: schemas.CodeDecodeFailed},
		{name: "no bytes of zlib", codec: "zlib", code: schemas.CodeDecodeFailed},
		{name: "only a skippable frame", codec: "zstd", blob: skippable, code: schemas.CodeDecodeFailed},
		{name: "zlib called zstd", codec: "zstd", blob: zl, size: size, code: schemas.CodeDecodeFailed},
		{name: "zstd called zlib", codec: "zlib", blob: zs, size: size, code: schemas.CodeDecodeFailed},
		{name: "zstd cut", codec: "zstd", blob: zs[:len(zs)-1], size: size, code: schemas.CodeDecodeFailed},
		{name: "zstd cut in its header", codec: "zstd", blob: zs[:5], size: size, code: schemas.CodeDecodeFailed},
		{name: "zstd cut in a block header", codec: "zstd", blob: sized[:8], size: size, code: schemas.CodeDecodeFailed},
		{name: "zstd cut in its checksum", codec: "zstd", blob: sized[:len(sized)-2], size: size, code: schemas.CodeDecodeFailed},
		{name: "zstd checksum wrong", codec: "zstd", blob: broken(sized, len(sized)-1), size: size, code: schemas.CodeDecodeFailed},
		{name: "rubbish before the end", codec: "zstd", blob: join(encode(half), []byte("rubbish")), size: size, code: schemas.CodeDecodeFailed},
		{name: "zlib cut", codec: "zlib", blob: zl[:len(zl)-5], size: size, code: schemas.CodeDecodeFailed},
		{name: "zlib checksum wrong", codec: "zlib", blob: broken(zl, len(zl)-1), size: size, code: schemas.CodeDecodeFailed},
		{name: "zlib damaged", codec: "zlib", blob: broken(zl, 10), size: size, code: schemas.CodeDecodeFailed},

		{name: "zstd longer", codec: "zstd", blob: zs, size: size - 1, code: schemas.CodeIntegrityMismatch},
		{name: "zstd shorter", codec: "zstd", blob: zs, size: size + 1, code: schemas.CodeIntegrityMismatch},
		{name: "zstd second frame too long", codec: "zstd", blob: join(encode(half), encode(rest)), size: size - 1, code: schemas.CodeIntegrityMismatch},
		{name: "zstd longer than nothing", codec: "zstd", blob: zs, code: schemas.CodeIntegrityMismatch},
		{name: "zlib longer", codec: "zlib", blob: zl, size: size - 1, code: schemas.CodeIntegrityMismatch},
		{name: "zlib shorter", codec: "zlib", blob: zl, size: size + 1, code: schemas.CodeIntegrityMismatch},
		{name: "zlib twice", codec: "zlib", blob: join(zl, zl), size: 2 * size, code: schemas.CodeIntegrityMismatch},
		{name: "size absurd", codec: "zstd", blob: zs, size: 1<<63 - 1, code: schemas.CodeIntegrityMismatch},
		{name: "size negative", codec: "zstd", blob: zs, size: -7, code: schemas.CodeIntegrityMismatch},
		{name: "bomb", codec: "zstd", blob: bomb(1e9), size: 10, code: schemas.CodeIntegrityMismatch},
		{name: "bomb in zlib", codec: "zlib", blob: compress(t, "zlib", make([]byte, 5<<20)), size: 10, code: schemas.CodeIntegrityMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a := schemas.Artifact{ID: "a-1", Codec: tt.codec, Size: tt.size}
			got, err := Decode(a, tt.blob, nil)
			if tt.code != "" {
				wantCode(t, err, tt.code)
				if err != nil && strings.ContainsRune(err.Error(), '\n') {
					t.Errorf("error of several lines: %q", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("got %d bytes, want %d, or other ones", len(got), len(tt.want))
			}
		})
	}
}

// What is hostile must cost no more memory than its declared size and a window,
// whatever it unfolds to and whatever it asks for.
func TestDecodeBombMemory(t *testing.T) {
	const windowOf2GiB = 21 << 3 // 2^(10+21)
	const maxUsed = 16 << 20     // windows are 8 MiB
	for name, tt := range map[string]struct {
		codec string
		blob  []byte
		want  schemas.Code
	}{
		"bomb":           {codecZstd, bomb(1e9), schemas.CodeIntegrityMismatch},
		"bomb in zlib":   {codecZlib, compress(t, codecZlib, make([]byte, 20<<20)), schemas.CodeIntegrityMismatch},
		"many frames":    {codecZstd, bytes.Repeat(encode(nil), 1<<14), schemas.CodeIntegrityMismatch},
		"window of 2GiB": {codecZstd, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, windowOf2GiB}, bomb(1e6)[6:]...), schemas.CodeCodecUnsupported},
		// A single segment of 2 GiB is its own window.
		"frame of 2GiB": {codecZstd, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0, 0, 0, 0, 0x80}, bomb(1e6)[6:]...), schemas.CodeCodecUnsupported},
	} {
		a := schemas.Artifact{ID: "a-1", Codec: tt.codec, Size: 10}
		for how, decode := range map[string]func() error{
			"at once": func() error { _, err := Decode(a, tt.blob, nil); return err },
			"as a stream": func() error {
				s, err := DecodeStream(a, io.NopCloser(bytes.NewReader(tt.blob)))
				if err == nil {
					_, err = io.Copy(io.Discard, s)
					_ = s.Close()
				}
				return err
			},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := decode()
			runtime.ReadMemStats(&after)
			wantCode(t, err, tt.want)
			if used := after.TotalAlloc - before.TotalAlloc; used > maxUsed {
				t.Errorf("%s, %s: decoding allocated %d bytes", name, how, used)
			}
		}
	}
}

func TestDecodeReusesMemory(t *testing.T) {
	t.Parallel()
	for _, codec := range []string{codecZstd, codecZlib} {
		buf := make([]byte, 0, 64<<10)
		var got []byte
		for _, n := range []int{40000, 10, 0, 9000} {
			content := sourceText(n, n)
			a := schemas.Artifact{ID: "a-1", Codec: codec, Size: int64(n)}
			var err error
			if got, err = Decode(a, compress(t, codec, content), buf); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, content) {
				t.Errorf("%s, %d bytes: wrong content", codec, n)
			}
			if cap(got) != cap(buf) {
				t.Errorf("%s, %d bytes: capacity %d, want that of dst, %d", codec, n, cap(got), cap(buf))
			}
		}
	}
}

func TestDecodeConcurrently(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			var dst []byte
			for i := range 30 {
				codec := []string{codecZstd, codecZlib}[i%2]
				content := sourceText(worker*100+i, 100+i*37)
				a := schemas.Artifact{ID: "a-1", Codec: codec, Size: int64(len(content))}
				var err error
				if dst, err = Decode(a, compress(t, codec, content), dst); err != nil || !bytes.Equal(dst, content) {
					t.Errorf("%s %d: %v", codec, i, err)
				}
			}
		})
	}
	wg.Wait()
}

// Other readers of archives need exactly one frame with the content's size.
func TestEncodeTellsSize(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 2, 3, 13, 100, 254, 255, 256, 257, 1000, 1024, 1025, 65791, 65792, 9 << 20} {
		for kind, content := range map[string][]byte{"noise": noise(n), "zeros": make([]byte, n)} {
			blob := encode(content)
			var h zstd.Header
			if err := h.Decode(blob); err != nil || !h.HasFCS || h.FrameContentSize != uint64(n) || h.Skippable {
				t.Errorf("%d bytes of %s: header %+v, %v", n, kind, h, err)
			}
			a := schemas.Artifact{ID: "a-1", Codec: codecZstd, Size: int64(n)}
			if got, err := Decode(a, blob, nil); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%d bytes of %s do not come back: %v", n, kind, err)
			}
		}
	}
	if diff := cmp.Diff("28b52ffd2000010000", fmt.Sprintf("%x", encode(nil))); diff != "" {
		t.Errorf("frame of an empty file (-want +got):\n%s", diff)
	}
}

// Decode's fast way must agree with reading frame by frame.
func FuzzDecode(f *testing.F) {
	text := []byte(strings.Repeat("one, two, three. ", 50))
	for _, codec := range []string{codecZstd, codecZlib, ""} {
		f.Add(codec, compress(f, codecZstd, text), int64(len(text)))
		f.Add(codec, compress(f, codecZlib, text), int64(len(text)))
	}
	f.Add(codecZstd, join(encode(text[:100]), encode(text[100:])), int64(len(text)))
	f.Add(codecZstd, streamed(f, bytes.NewReader(text)), int64(len(text)))
	f.Add(codecZstd, encode(nil), int64(0))
	f.Add(codecZstd, encode(make([]byte, 1<<20)), int64(10))
	f.Fuzz(func(t *testing.T, codec string, blob []byte, size int64) {
		a := schemas.Artifact{ID: "a-1", Codec: codec, Size: size % (1 << 20)}
		got, err := Decode(a, blob, nil)
		if err == nil && int64(len(got)) != a.Size {
			t.Fatalf("got %d bytes without an error, want %d", len(got), a.Size)
		}
		name, codecErr := codecOf(a, blob)
		if codecErr != nil {
			wantCode(t, err, schemas.CodeCodecUnsupported)
			return
		}
		again, slowErr := readContent(a, name, blob, nil)
		if (err == nil) != (slowErr == nil) || !bytes.Equal(got, again) {
			t.Fatalf("at once: %d bytes, %v; frame by frame: %d bytes, %v", len(got), err, len(again), slowErr)
		}
	})
}
