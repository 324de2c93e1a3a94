package faults

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/exhume/exhume/schemas"
)

// undecodable are the codes of bytes of which nobody can say how they are wrong.
var undecodable = []schemas.Code{schemas.CodeDecodeFailed, schemas.CodeIntegrityMismatch, schemas.CodeCodecUnsupported}

// damages are what can be wrong with stored bytes and with what is said of them, and
// what looks as if something were.
var damages = []damage{
	{"other bytes", schemas.CodeIntegrityMismatch, nil, func(random *rand.Rand, r *row) { r.blob = zstdOf(noise(random, len(r.content))) }},
	{"a byte more", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob = zstdOf(append(r.content, 'x')) }},
	{"a byte less", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob = zstdOf(r.content[1:]) }},
	{"twice", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob = zstdOf(append(r.content, r.content...)) }},
	{"no bytes", schemas.CodeDecodeFailed, nil, func(_ *rand.Rand, r *row) { r.blob = []byte{} }},
	{"cut off", schemas.CodeDecodeFailed, nil, func(random *rand.Rand, r *row) { r.blob = r.blob[:1+random.IntN(len(r.blob)-1)] }},
	{"a bit", "", undecodable, func(random *rand.Rand, r *row) { flip(random, r.blob) }},
	{"a bit beyond the header", schemas.CodeIntegrityMismatch, nil, func(random *rand.Rand, r *row) { flip(random, r.blob[len(r.blob)-90:]) }},
	{"noise", schemas.CodeDecodeFailed, nil, func(random *rand.Rand, r *row) { r.blob = append([]byte{0}, noise(random, 500)...) }},
	{"a frame of noise", "", undecodable, func(random *rand.Rand, r *row) { r.blob = append(r.blob[:4:4], noise(random, 500)...) }},
	{"zlib as zstd", schemas.CodeDecodeFailed, nil, func(_ *rand.Rand, r *row) { r.blob = zlibOf(r.content) }},
	{"a dictionary", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob = zstdOf(r.content, zstd.WithEncoderDictRaw(7, r.content)) }},
	{"a window of 2 GiB", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob = wideFrame(r.content) }},
	{"a segment of 2 GiB", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob = longFrame(r.content) }},
	{"two frames", "", nil, func(_ *rand.Rand, r *row) { r.blob = append(zstdOf(r.content[:50]), zstdOf(r.content[50:])...) }},
	{"a second frame cut off", schemas.CodeDecodeFailed, nil, func(_ *rand.Rand, r *row) {
		r.blob = append(zstdOf(r.content[:50]), r.blob[:len(r.blob)/2]...)
	}},
	{"after a skippable frame", "", nil, func(random *rand.Rand, r *row) { r.blob = append(skippable(noise(random, 300)), r.blob...) }},
	{"before noise", "", nil, func(random *rand.Rand, r *row) { r.blob = append(r.blob, noise(random, 300)...) }},

	{"zlib", "", nil, asZlib(func(*rand.Rand, *row) {})},
	{"zlib of other bytes", schemas.CodeIntegrityMismatch, nil, asZlib(func(random *rand.Rand, r *row) { r.blob = zlibOf(noise(random, len(r.content))) })},
	{"zlib, a byte more", schemas.CodeIntegrityMismatch, nil, asZlib(func(_ *rand.Rand, r *row) { r.blob = zlibOf(append(r.content, 'x')) })},
	{"zlib, a byte less", schemas.CodeIntegrityMismatch, nil, asZlib(func(_ *rand.Rand, r *row) { r.blob = zlibOf(r.content[1:]) })},
	{"zlib, cut off", schemas.CodeDecodeFailed, nil, asZlib(func(random *rand.Rand, r *row) { r.blob = r.blob[:random.IntN(len(r.blob))] })},
	{"zlib, a bit", "", undecodable, asZlib(func(random *rand.Rand, r *row) { flip(random, r.blob) })},
	{"zlib, its checksum", schemas.CodeDecodeFailed, nil, asZlib(func(random *rand.Rand, r *row) { flip(random, r.blob[len(r.blob)-4:]) })},
	{"zlib, noise", "", undecodable, asZlib(func(random *rand.Rand, r *row) { r.blob = append(r.blob[:2:2], noise(random, 500)...) })},
	{"zstd as zlib", schemas.CodeDecodeFailed, nil, func(_ *rand.Rand, r *row) { r.codec = "zlib" }},

	{"an unknown codec", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.codec = "lz4" }},
	{"no codec, of zlib", "", nil, asZlib(func(_ *rand.Rand, r *row) { r.codec = "" })},
	{"no codec, of zstd", "", nil, func(_ *rand.Rand, r *row) { r.codec = "" }},
	{"no codec, of noise", schemas.CodeCodecUnsupported, nil, func(random *rand.Rand, r *row) { r.codec, r.blob = "", append([]byte{0}, noise(random, 500)...) }},

	{"declared a byte longer", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.size++ }},
	{"declared a byte shorter", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.size-- }},
	{"declared empty", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.size = 0 }},
	{"declared below nothing", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.size = -5 }},
	{"declared a tebibyte", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.size = 1 << 40 }},
	{"declared another digest", schemas.CodeIntegrityMismatch, nil, func(random *rand.Rand, r *row) { r.sum = sha(noise(random, 32)) }},
}

// explosives are small and decode to much, or want much memory.
var explosives = []damage{
	{"8 GiB of zstd for 1,000 bytes", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob, r.size = bombFrame(8<<30), 1000 }},
	{"1 GiB of zstd, decoded in memory", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob, r.size = bombFrame(1<<30), 1000 }},
	{"1 GiB of zstd in frames, decoded in memory", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) {
		r.blob, r.size = bytes.Repeat(bombFrame(1<<20), 1024), 1000
	}},
	{"8 GiB of zstd for 8 MiB", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob, r.size = bombFrame(8<<30), 8<<20 }},
	{"8 GiB of zstd for none", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob, r.size = bombFrame(8<<30), 0 }},
	{"4 GiB of zlib for 1,000 bytes", schemas.CodeIntegrityMismatch, nil, asZlib(func(_ *rand.Rand, r *row) { r.blob, r.size = zlibBomb(), 1000 })},
	{"64 MiB of zlib, decoded in memory", schemas.CodeIntegrityMismatch, nil, asZlib(func(_ *rand.Rand, r *row) { r.blob, r.size = zlibBomb()[:128<<10], 1000 })},
	{"4 GiB of zlib for 8 MiB", schemas.CodeIntegrityMismatch, nil, asZlib(func(_ *rand.Rand, r *row) { r.blob, r.size = zlibBomb(), 8<<20 })},
	{"a window of 2 GiB", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob = wideFrame(r.content) }},
	{"a segment of 2 GiB", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob = longFrame(r.content) }},
	{"a segment of 2 GiB, declared so", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob, r.size = longFrame(r.content), 2<<30 }},
	{"a window of 2 GiB, declared to be filled", schemas.CodeCodecUnsupported, nil, func(_ *rand.Rand, r *row) { r.blob, r.size = wideFrame(r.content), 2<<30 }},
	{"a million empty frames", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) { r.blob = bytes.Repeat(zstdOf(nil), 1_000_000) }},
	{"a million frames to skip", schemas.CodeIntegrityMismatch, nil, func(_ *rand.Rand, r *row) {
		r.blob = append(zstdOf(nil), bytes.Repeat(skippable(nil), 1_000_000)...)
	}},
}

// asZlib stores the content as zlib before it is damaged.
func asZlib(do func(*rand.Rand, *row)) func(*rand.Rand, *row) {
	return func(random *rand.Rand, r *row) {
		r.blob, r.codec = zlibOf(r.content), "zlib"
		do(random, r)
	}
}

// noise is so many bytes of any kind.
func noise(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

// flip turns over one bit.
func flip(random *rand.Rand, b []byte) { b[random.IntN(len(b))] ^= 1 << random.IntN(8) }

func zstdOf(content []byte, opts ...zstd.EOption) []byte {
	e, err := zstd.NewWriter(nil, append(opts, zstd.WithZeroFrames(true))...)
	if err != nil {
		panic(err) // the options are constants
	}
	defer e.Close() //nolint:errcheck // it has written nothing
	return e.EncodeAll(content, nil)
}

func unzstd(t *testing.T, blob []byte) []byte {
	t.Helper()
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	content, err := d.DecodeAll(blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func zlibOf(content []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, _ = w.Write(content)
	_ = w.Close()
	return b.Bytes()
}

// The parts of a zstd frame; see RFC 8878.
const (
	zstdMagic = 0xFD2FB528
	skipMagic = 0x184D2A50
	// Window descriptors.
	window8MiB, window2GiB = 13 << 3, 21 << 3
	// Types of blocks.
	blockRaw, blockRLE = 0, 1
	maxBlock           = 128 << 10
)

// block is a block with this body, which makes up size bytes.
func block(b []byte, kind, size int, body []byte, last bool) []byte {
	header := uint32(size)<<3 | uint32(kind)<<1
	if last {
		header |= 1
	}
	return append(append(b, byte(header), byte(header>>8), byte(header>>16)), body...)
}

// wideFrame is a frame of a content, with a window of 2 GiB.
func wideFrame(content []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, zstdMagic)
	return block(append(b, 0, window2GiB), blockRaw, len(content), content, true)
}

// longFrame is a frame of a content that says that it is 2 GiB long, in one piece.
func longFrame(content []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, zstdMagic)
	b = binary.LittleEndian.AppendUint64(append(b, 3<<6|1<<5), 2<<30)
	return block(b, blockRaw, len(content), content, true)
}

// frameHead begins a frame that does not tell its length.
var frameHead = append(binary.LittleEndian.AppendUint32(nil, zstdMagic), 0, window8MiB)

// bombFrame is a frame of so many zero bytes.
func bombFrame(size int) []byte {
	b := slices.Clone(frameHead)
	for range size / maxBlock {
		b = block(b, blockRLE, maxBlock, []byte{0}, false)
	}
	return block(b, blockRaw, 0, nil, true)
}

// skippable is a frame that is none.
func skippable(content []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, skipMagic)
	return append(binary.LittleEndian.AppendUint32(b, uint32(len(content))), content...)
}

// zlibBomb is a stream of 4 GiB of zero bytes, but for its end. It is not to be changed.
var zlibBomb = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	piece := make([]byte, 4<<20)
	_, _ = w.Write(piece)
	_ = w.Flush()
	first := b.Len()
	_, _ = w.Write(piece)
	_ = w.Flush()
	// A piece refers to nothing but zeros before it, and ends with a whole byte.
	return append(b.Bytes(), bytes.Repeat(b.Bytes()[first:], 1022)...)
})
