package archive

import "github.com/exhume/exhume/schemas"

// CheckCodec says, without the bytes of an artifact, whether its codec is one
// that Decode knows: the error has CodeCodecUnsupported when it is not. Where
// the archive declares none only the bytes can tell, and there is no error.
func CheckCodec(a schemas.Artifact) error {
	if a.Codec == "" {
		return nil
	}
	_, err := codecOf(a, nil)
	return err
}
