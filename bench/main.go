//go:build unix

// Bench measures keywright beside hand-written net/http code, in one run, and
// writes what it finds to docs/benchmarks.md and docs/benchmarks.svg.
//
//	go run ./bench
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/keywright/keywright"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// child does what this process was started for by itself, if it was.
func child() (bool, error) {
	if os.Getenv(serveVariable) != "" {
		return true, serve()
	}
	if v := os.Getenv(iterateVariable); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			return true, err
		}
		return true, iterateAndReport(os.Getenv("KEYWRIGHT_BENCH_URL"), n)
	}
	return false, nil
}

// row is one line of the table.
type row struct {
	id, measure   string
	target, value string
	ratio         float64 // for the plot; 0: none
	limit         float64
	met           bool
}

func run() error {
	if ok, err := child(); ok {
		return err
	}
	if _, err := os.Stat("bench/main.go"); err != nil {
		return fmt.Errorf("run it from the root of the repository: go run ./bench")
	}
	url, stop, err := startServer()
	if err != nil {
		return err
	}
	defer stop()
	rows, err := measure(url)
	if err != nil {
		return err
	}
	for _, r := range rows {
		fmt.Println(r.text())
	}
	if err := os.WriteFile("docs/benchmarks.md", []byte(document(rows)), 0o644); err != nil {
		return err
	}
	return os.WriteFile("docs/benchmarks.svg", []byte(plot(rows)), 0o644)
}

func (r row) text() string {
	mark := "met"
	if !r.met {
		mark = "MISSED"
	}
	return fmt.Sprintf("%-4s %-62s %-34s %-24s %s", r.id, r.measure, r.value, r.target, mark)
}

const rounds = 9

func measure(url string) (rows []row, err error) {
	ctx := context.Background()
	s, err := newSDK(url)
	if err != nil {
		return nil, err
	}
	f, fresh := newFloor(url, false), newFloor(url, true)
	add := func(r row, problem error) {
		if err == nil && problem != nil {
			err = fmt.Errorf("%s: %w", r.id, problem)
		}
		rows = append(rows, r)
		fmt.Fprintln(os.Stderr, "measured", r.id)
	}
	times := func(id, measure string, limit float64, cost func(func() error) (time.Duration, error), a, b func() error) {
		x, problem := ratio(rounds, cost, a, b)
		add(row{id, measure, fmt.Sprintf("≤ %.2f ×", limit), fmt.Sprintf("%.2f ×", x), x, limit, x <= limit}, problem)
	}
	retrieve := func() error { return s.retrieve(ctx) }
	floorRetrieve := func() error { return f.retrieve(ctx) }
	load := func(n, width int, call func() error) func() error {
		return func() error { return each(n, width, call) }
	}

	n, b, problem := allocations(2000, retrieve)
	fn, fb, _ := allocations(2000, floorRetrieve)
	add(row{"P1", "retrieve over loopback: allocations, bytes (floor: " + fmt.Sprintf("%.0f, %.0f)", fn, fb), "≤ 83, ≤ 5.8 KB", fmt.Sprintf("%.0f, %.0f B", n, b), 0, 0, n <= 83 && b <= 5939}, problem)
	times("P2", "retrieve, CPU, one at a time", 1.10, cpuCost, load(2000, 1, retrieve), load(2000, 1, floorRetrieve))
	times("P2", "retrieve, CPU, 64 at once", 1.10, cpuCost, load(6400, 64, retrieve), load(6400, 64, floorRetrieve))

	body := fmt.Appendf(nil, keyJSON, 1, tokenText(1))
	mem := &http.Client{Transport: &memory{body}}
	ms, problem := newSDK("https://memory.example", keywright.WithHTTPClient(mem))
	if problem != nil {
		return nil, problem
	}
	mf := &floor{url: "https://memory.example", client: mem}
	memRetrieve, memRotate := func() error { return ms.retrieve(ctx) }, func() error { return ms.rotate(ctx) }
	n, _, problem = allocations(2000, memRetrieve)
	add(row{"P3", "the SDK alone, get: allocations", "≤ 45", fmt.Sprintf("%.0f", n), 0, 0, n <= 45}, problem)
	n, _, problem = allocations(2000, memRotate)
	add(row{"P3", "the SDK alone, mutate: allocations", "≤ 52", fmt.Sprintf("%.0f", n), 0, 0, n <= 52}, problem)
	times("P3", "the SDK alone, get, CPU", 1.15, cpuCost, load(20000, 1, memRetrieve), load(20000, 1, func() error { return mf.retrieve(ctx) }))
	times("P3", "the SDK alone, mutate, CPU", 1.25, cpuCost, load(20000, 1, memRotate), load(20000, 1, func() error { return mf.rotate(ctx) }))

	conns, problem := connectionsOf(url, 10000, 64, func(s *sdk) error { return s.retrieve(ctx) })
	add(row{"P4", "10,000 calls, 64 at once, as it comes: connections", "≤ 128", fmt.Sprint(conns), 0, 0, conns <= 128}, problem)
	x, problem := ratio(rounds, wallCost, load(6400, 64, floorRetrieve), load(6400, 64, retrieve))
	add(row{"P4", "64 at once, as it comes: throughput of the floor's", "≥ 0.95 ×", fmt.Sprintf("%.2f ×", x), 0, 0, x >= 0.95}, problem)

	times("P5", "rotate, CPU, the floor on fresh connections too", 1.15, cpuCost, load(500, 1, func() error { return s.rotate(ctx) }), load(500, 1, func() error { return fresh.rotate(ctx) }))

	const items = 20000
	times("P6", "iterate over 20,000 items, CPU", 1.05, cpuCost, func() error { return s.iterate(ctx, items) }, func() error { return f.iterate(ctx, items) })
	n, b, problem = allocations(3, func() error { return s.iterate(ctx, items) })
	add(row{"P6", "iterate: allocations, bytes an item", "≤ 19.2, ≤ 700 B", fmt.Sprintf("%.1f, %.0f B", n/items, b/items), 0, 0, n/items <= 19.2 && b/items <= 700}, problem)

	rss, problem := peak(url, totalItems)
	add(row{"P8", "peak memory over 1,000,000 items", "≤ 16 MB", fmt.Sprintf("%.1f MB", float64(rss)/1e6), 0, 0, rss <= 16e6}, problem)

	awayBy := keywright.WithHeader("X-Away", "20ms")
	consume := func(opts ...keywright.CallOption) func() error {
		return func() error {
			for _, err := range s.rc.Key.All(ctx, keywright.KeyListParams{Limit: 1000, AfterID: 20001}, append(opts, awayBy)...) {
				if err != nil {
					return err
				}
				work()
			}
			return nil
		}
	}
	x, problem = ratio(3, wallCost, consume(), consume(keywright.WithPrefetch()))
	add(row{"P10", "20 cursor pages 20 ms away, 10 µs of work an item: WithPrefetch", "≥ 1.3 × faster", fmt.Sprintf("%.2f ×", x), 0, 0, x >= 1.3}, problem)
	ad, problem := keywright.NewAceData(keywright.WithoutEnvironment(), keywright.WithBaseURL(url), keywright.WithToken("bench-token-0123456789"))
	if problem != nil {
		return nil, problem
	}
	offsets := func(opts ...keywright.CallOption) func() error {
		return func() error {
			_, err := keywright.Collect(ad.Credential.All(ctx, keywright.CredentialListParams{UserIDs: []string{"u"}, Limit: 100}, append(opts, awayBy)...), 5000)
			return err
		}
	}
	x, problem = ratio(3, wallCost, offsets(), offsets(keywright.WithParallel(4)))
	add(row{"P11", "20 offset pages 20 ms away: WithParallel(4)", "≥ 2.5 × faster", fmt.Sprintf("%.2f ×", x), 0, 0, x >= 2.5}, problem)

	conns, problem = connectionsOf(url, 8000, 32, failing)
	add(row{"P12", "8,000 calls, 32 at once, 1 % fail: connections", "≤ 96", fmt.Sprint(conns), 0, 0, conns <= 96}, problem)
	if err != nil {
		return rows, err
	}

	dir, err := os.MkdirTemp("", "keywright-bench-")
	if err != nil {
		return rows, err
	}
	defer os.RemoveAll(dir)
	root, err := filepath.Abs(".")
	if err != nil {
		return rows, err
	}
	built, err := build(dir, root, true)
	if err != nil {
		return rows, err
	}
	p, q := built["sdk"], built["floor"]
	others := len(p.modules) - 2 // this one, and the program's own
	add(row{"P13", "import: modules compiled", "2", fmt.Sprint(others), 0, 0, others <= 2}, nil)
	more := (p.cold - q.cold).Seconds()
	add(row{"P13", "import: cold compile over net/http's", "≤ 4 CPU-s", fmt.Sprintf("%.1f CPU-s", more), 0, 0, more <= 4}, nil)
	mb := float64(p.size-q.size) / 1e6
	add(row{"P13", "import: binary over net/http's", "≤ 1.0 MB", fmt.Sprintf("%.2f MB", mb), 0, 0, mb <= 1}, nil)
	times("P14", "process start, wall clock", 1.10, wallCost, starts(p.binary), starts(q.binary))
	return rows, err
}

// work is about 10 µs of a consumer's time.
func work() {
	for start := time.Now(); time.Since(start) < 10*time.Microsecond; {
	}
}

func starts(binary string) func() error {
	return func() error {
		for range 30 {
			if err := spawn(binary); err != nil {
				return err
			}
		}
		return nil
	}
}

func document(rows []row) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nMade by `go run ./bench` from the root of the repository; do not edit.\n\n")
	fmt.Fprintf(&b, "Measured with %s on %s/%s with %d cores. The floor is hand-written net/http and encoding/json on one tuned transport, without retries, limits, outcomes or secrets (`bench/clients.go`); the server is a process of its own. A ratio is the median of %d rounds in which both sides took turns: times on a busy machine say little, ratios in one run say more. What is exact is asserted by tests: allocations by `TestAllocations`, and allocations over loopback, connections, modules by `TestExact` in `bench`.\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), rounds)
	b.WriteString("| | measure | here | target | |\n|---|---|---|---|---|\n")
	for _, r := range rows {
		mark := "met"
		if !r.met {
			mark = "missed"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.id, r.measure, r.value, r.target, mark)
	}
	b.WriteString("\n![CPU of keywright as a multiple of the floor's](benchmarks.svg)\n")
	return b.String()
}

// plot draws the ratios as bars, with the floor and the targets marked.
func plot(rows []row) string {
	const left, scale, height = 330, 300, 26
	var b strings.Builder
	y := 40
	for _, r := range rows {
		if r.ratio == 0 {
			continue
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s %s</text>`, left-10, y+14, r.id, r.measure)
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.0f" height="18" fill="#3b78b5"/>`, left, y, r.ratio*scale)
		fmt.Fprintf(&b, `<line x1="%.0f" x2="%.0f" y1="%d" y2="%d" stroke="#c0392b" stroke-width="2"/>`, left+r.limit*scale, left+r.limit*scale, y-3, y+21)
		fmt.Fprintf(&b, `<text x="%.0f" y="%d" fill="#fff" text-anchor="end">%.2f ×</text>`+"\n", left+r.ratio*scale-6, y+14, r.ratio)
		y += height
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="760" height="%d" font-family="sans-serif" font-size="12" fill="#222">
<rect width="100%%" height="100%%" fill="#fff"/>
<text x="10" y="20" font-size="14">keywright as a multiple of hand-written net/http (black: the floor, red: the target)</text>
%s<line x1="%d" x2="%d" y1="32" y2="%d" stroke="#222"/>
</svg>
`, y+16, b.String(), left+scale, left+scale, y)
}
