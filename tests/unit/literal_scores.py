"""Open-world scores as their papers write them: one image at a time, in loops, and slow."""

import math
from collections.abc import Sequence

import numpy as np

Row = Sequence[float]


def msp(classes: Row, temperature: float) -> float:
    heights = [math.exp((each - max(classes)) / temperature) for each in classes]
    return max(heights) / sum(heights)


def energy(classes: Row, scale: float, temperature: float) -> float:
    return temperature * math.log(sum(math.exp(scale * each / temperature) for each in classes))


def neglabel(classes: Row, negatives: Row, groups: int, temperature: float) -> float:
    """Groups are dealt, as cards are."""
    hands: list[list[float]] = [[] for _ in range(groups)]
    for number, each in enumerate(negatives):
        hands[number % groups].append(each)
    shares = []
    for hand in hands:
        top = max([*classes, *hand])
        own = sum(math.exp((each - top) / temperature) for each in classes)
        shares.append(own / (own + sum(math.exp((each - top) / temperature) for each in hand)))
    return sum(shares) / groups


def eoe(classes: Row, outliers: Row, form: str, beta: float = 0.25) -> float:
    if form == "energy":
        return energy(classes, 1.0, 0.01) - energy(outliers, 1.0, 0.01)
    if form == "max_logit":
        return max(classes) - max(outliers)
    if form == "max":
        return 1 / len(classes) if max(outliers) > max(classes) else msp(classes, 1.0)
    total = sum(math.exp(each) for each in [*classes, *outliers])
    shares = [math.exp(each) / total for each in [*classes, *outliers]]
    inside, outside = shares[: len(classes)], shares[len(classes) :]
    return max(inside) - (beta * max(outside) if form == "penalty" else 0.0)


def clipn(classes: Row, no: Row, scale: float, form: str) -> float:
    yes = [math.exp(scale * a) / (math.exp(scale * a) + math.exp(scale * b)) for a, b in zip(classes, no, strict=True)]
    if form == "ctw":
        return yes[max(range(len(classes)), key=lambda place: classes[place])]
    total = sum(math.exp(scale * each) for each in classes)
    return sum(math.exp(scale * each) / total * own for each, own in zip(classes, yes, strict=True))


def knn(feature: np.ndarray, training: np.ndarray, k: int) -> float:
    return -sorted(math.dist(feature, each) for each in training)[k - 1]


def mahalanobis(feature: np.ndarray, training: np.ndarray, labels: np.ndarray) -> float:
    means = {label: training[labels == label].mean(axis=0) for label in set(labels.tolist())}
    gaps = [each - means[label] for each, label in zip(training, labels.tolist(), strict=True)]
    precision = np.linalg.pinv(sum(np.outer(gap, gap) for gap in gaps) / len(gaps))
    return max(float(-(feature - mean) @ precision @ (feature - mean)) for mean in means.values())


def vim(
    feature: np.ndarray, classes: Row, training: np.ndarray, texts: np.ndarray, scale: float, dimension: int
) -> float:
    values, vectors = np.linalg.eig(training.T @ training)
    null = vectors[:, np.argsort(-values)[dimension:]]
    largest = [max(scale * float(each @ text) for text in texts) for each in training]
    alpha = sum(largest) / sum(float(np.linalg.norm(each @ null)) for each in training)
    return energy(classes, scale, 1.0) - alpha * float(np.linalg.norm(feature @ null))


class AdaNeg:
    """With every place of every memory, and every proxy, as the paper describes them."""

    def __init__(self, classes: np.ndarray, negatives: np.ndarray, scale: float, groups: int, length: int) -> None:
        self.texts, self.known = np.concatenate([classes, negatives]), len(classes)
        self.scale, self.groups, self.length = scale, groups, length
        self.memory = np.zeros((len(self.texts), length, self.texts.shape[1]))
        self.entropy = np.full((len(self.texts), length), np.nan)
        self.memory[:, 0], self.entropy[:, 0] = self.texts, 0.0

    def batch(self, images: np.ndarray) -> list[float]:
        static = [self.share(image, self.texts) for image in images]
        for sure, low, high in ((True, 0, self.known), (False, self.known, len(self.texts))):
            for image, score in zip(images, static, strict=True):
                if (score > 0.75) if sure else (score < 0.25):
                    self.remember(image, low, high)
        sums = self.memory.mean(axis=1)
        proxies = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return [self.share(image, proxies) + 0.1 * score for image, score in zip(images, static, strict=True)]

    def share(self, image: np.ndarray, proxies: np.ndarray) -> float:
        cosines = [float(image @ proxy) for proxy in proxies]
        return neglabel(cosines[: self.known], cosines[self.known :], self.groups, 1 / self.scale)

    def remember(self, image: np.ndarray, low: int, high: int) -> None:
        logits = [self.scale * float(image @ text) for text in self.texts[low:high]]
        heights = [math.exp(each - max(logits)) for each in logits]
        shares = [each / sum(heights) for each in heights]
        entropy = -sum(each * math.log(each) for each in shares if each > 0)
        place = low + max(range(len(logits)), key=lambda each: logits[each])
        free = np.isnan(self.entropy[place]).nonzero()[0]
        if len(free):
            slot = int(free[0])
        elif (entropy < self.entropy[place]).any():
            slot = int(self.entropy[place].argmax())
        else:
            return
        self.memory[place, slot], self.entropy[place, slot] = image, entropy
