"""The thread that attributes: it finds the regions, reads each finished span, and says what came of it or what was lost."""

import contextlib

import torch

from eyeline.asked import Asked, are_believed
from eyeline.capture import AttentionCapture, NoCapture
from eyeline.exchange import Exchange, Job, sentence
from eyeline.familiar import notices
from eyeline.grounding import Grounding
from eyeline.reader import Reader, ReadSpan
from eyeline.regions import Regions, regions_for
from eyeline.spans import Span
from eyeline.statements import states


def work(exchange: Exchange) -> None:
    """Attributes until nothing more comes, whatever happens; `Start` and `Done` are put in any case."""
    try:
        _attribute(exchange)
    except Exception as error:
        exchange.cancel()
        exchange.fail(f"Attribution failed, generation ends: {sentence(error)}")
    finally:
        exchange.start(())  # where the prompt could not be read
        exchange.done()


def _attribute(exchange: Exchange) -> None:
    """Attributes spans as they come; what fails becomes an `Error` event, and the next span is tried."""
    asked = exchange.asked
    regions: Regions | None = None
    reader: Reader | None = None
    grounding = Grounding()
    device = asked.model.device
    side = torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else contextlib.nullcontext()
    with torch.inference_mode(), side:
        while (job := exchange.work.get()) is not None:
            try:
                if job.mark is not None:
                    job.mark.wait()
                if isinstance(job.capture, NoCapture):
                    if job.span is None:
                        exchange.start(())
                        exchange.fail("There is no image: the answer comes without attribution.")
                elif job.ahead is not None:
                    if reader is not None:
                        _read_ahead(reader, job)
                elif job.early:
                    regions = _regions(asked, job.capture)
                    assert job.capture.vision_features is not None
                    exchange.start(regions.grids, notices(asked.model.name, job.capture.vision_features))
                elif job.span is None:
                    if regions is not None:
                        reader = Reader(
                            asked.model, asked.inputs, job.capture, regions, asked.estimator, asked.sources,
                            asked.measure_whole,
                        )  # fmt: skip
                        reader.measure_leak(exchange.cancelled.is_set)
                elif reader is not None:
                    span = job.span
                    read = reader.read(span, exchange.ids[span.start : span.end])
                    _compare(exchange, span, read)
                    sources = grounded = None
                    if read.game is not None:
                        exchange.games.add(span.start, read.game, read.links, span.index)
                    if read.game is not None and read.links is not None:
                        sources = exchange.games.sources([(span.start, span.end)])
                        grounded = _grounded(exchange, grounding, span, read)
                    latency = exchange.seconds_since(span.end - 1)
                    exchange.pass_on(reader.event(span, read, latency, sources, grounded))
            except Exception as error:
                exchange.start(())  # where the images could not be read
                lost = "all attributions" if job.span is None else f"the attribution of span {job.span.index}"
                exchange.fail(f"Lost {lost}, generation goes on: {sentence(error)}")
            finally:
                if job.span is not None:
                    _release(job.capture, job.span.end)
                exchange.job_done()


def _grounded(exchange: Exchange, grounding: Grounding, span: Span, read: ReadSpan) -> bool | None:
    """Whether a span whose game was kept just now states something and is grounded.

    None where it states nothing, or sizes cannot be believed.
    """
    asked, kept = exchange.asked, exchange.games
    found = grounding.add(span.start, kept.games[-1], kept.links[-1], float(read.log_probs.sum()))
    return found if are_believed(asked.estimator) and states(span.text, asked.question) else None


def _read_ahead(reader: Reader, job: Job) -> None:
    """Reads tokens whose span has not ended. Where that fails they stay, and their span is tried as a whole, which tells why."""
    assert job.ahead is not None
    with contextlib.suppress(Exception):
        reader.read_ahead(*job.ahead)
        _release(job.capture, reader.end)


def _release(capture: AttentionCapture | NoCapture, end: int) -> None:
    """Lets go of steps; on CUDA when they have been read, for their memory goes back to the model's stream."""
    if isinstance(capture, AttentionCapture) and capture.device.type == "cuda":
        torch.cuda.current_stream(capture.device).synchronize()
    capture.release(end)


def _compare(exchange: Exchange, span: Span, read: ReadSpan) -> None:
    """Holds the log-probs of a span's tokens beside those that the server tells which writes the trace."""
    if (agreement := exchange.agreement) is not None:
        theirs = [each and each.log_prob for each in exchange.likely[span.start : span.end]]
        agreement.add(theirs, read.log_probs.tolist())
        if (sentence := agreement.alarm()) is not None:
            exchange.fail(sentence)


def _regions(asked: Asked, capture: AttentionCapture) -> Regions:
    assert capture.vision_features is not None, "the vision tower has seen the images"
    if asked.hidden is None:
        return regions_for(asked.pictures, capture.grids, capture.vision_features, asked.regions)
    grids = tuple(map(torch.tensor, asked.hidden.grids))
    return Regions(grids, 1 + max(int(grid.max()) for grid in grids))
