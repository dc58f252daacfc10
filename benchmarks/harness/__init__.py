"""What the benchmarks of HTTP share: servers on a core of their own, load generators, tables, and the chart."""
