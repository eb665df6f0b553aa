"""The cases, one file a subject. Every function marked with @test is one test."""
