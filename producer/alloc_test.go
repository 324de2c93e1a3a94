package producer

import "testing"

// Checking a row allocates what it holds, not more, however many there are.
func TestCheckingAllocatesLittle(t *testing.T) {
	for format, most := range map[string]float64{"jsonl": 12, "csv": 6, "json": 10} {
		const rows = 2000
		m := openManifestOf(t, bulk(t, format, rows), ManifestOptions{Actor: "x"})
		allocs := testing.AllocsPerRun(5, func() {
			if c, err := m.Check(t.Context(), nil); err != nil || c.Valid != rows {
				t.Fatal(c, err)
			}
		})
		if each := allocs / rows; each > most {
			t.Errorf("%s: %.1f allocations a row, want at most %v", format, each, most)
		}
	}
}
