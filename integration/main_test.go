package integration

import (
	"testing"

	"github.com/exhume/exhume/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
