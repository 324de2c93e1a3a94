package archive

import (
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Archives are read by decoders that want one frame with the content's size in
// its header. zstd can leave the size out below tinyContent bytes unless the
// frame is a single segment; above, a single segment would make readers hold
// the whole content, so that is only asked for where it is needed.
const tinyContent = 256

var (
	tinyEncoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder(zstd.WithSingleSegment(true)) })
	fullEncoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder() })
)

func newEncoder(more ...zstd.EOption) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, append(more,
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithZeroFrames(true),
		zstd.WithEncoderCRC(false), // the SHA-256 of the content is checked anyway
	)...)
	if err != nil {
		panic(err) // the options are constants
	}
	return e
}

// encode compresses content into exactly one zstd frame that tells the
// content's size. It is safe for concurrent use.
func encode(content []byte) []byte {
	e := fullEncoder()
	if len(content) < tinyContent {
		e = tinyEncoder()
	}
	return e.EncodeAll(content, nil)
}
